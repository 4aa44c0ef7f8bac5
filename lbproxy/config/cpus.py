"""How many CPUs this process may use: its affinity, and the quota of its cgroup and of every group above it.

A container is given a quota, not an affinity, so without it "auto" would mean every CPU of the host.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from lbproxy.config.cgroups import cgroups, lines


def usable_cpus(own: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo") -> int:
    """The number of CPUs, at least 1. A part of a CPU counts as a whole one."""
    cpus = float(len(os.sched_getaffinity(0)))
    for quota in _quotas(own, mounts):
        cpus = min(cpus, quota)
    return max(1, math.ceil(cpus))


def _quotas(own: str, mounts: str) -> Iterator[float]:
    """The CPUs that each cgroup of this process with a quota allows."""
    for version, group in cgroups("cpu", own, mounts):
        quota = _quota_v2(group) if version == 2 else _quota_v1(group)
        if quota is not None:
            yield quota


def _quota_v2(group: Path) -> float | None:
    words = " ".join(lines(group / "cpu.max")).split()
    return _ratio(*words) if len(words) == 2 else None


def _quota_v1(group: Path) -> float | None:
    quota, period = ("".join(lines(group / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    if not quota.isdigit() or not period.isdigit() or not int(quota) or not int(period):
        return None  # "max", -1, or nothing there
    return int(quota) / int(period)
