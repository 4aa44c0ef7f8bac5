"""How many CPUs this process may use: its affinity, and the quota of its cgroup and of every group above it.

Knows /proc and the file systems of cgroup v1 and v2 (cgroups(7)). A container is given a quota, not an affinity, so
without it "auto" would mean every CPU of the host.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cpus(own: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo") -> int:
    """The number of CPUs, at least 1. A part of a CPU counts as a whole one."""
    cpus = float(len(os.sched_getaffinity(0)))
    for quota in _quotas(own, mounts):
        cpus = min(cpus, quota)
    return max(1, math.ceil(cpus))


def _quotas(own: str, mounts: str) -> Iterator[float]:
    """The CPUs that each cgroup of this process with a quota allows."""
    groups = _groups(own)
    for kind, controllers, root, mount in _mounts(mounts):
        name = "" if kind == "cgroup2" else "cpu"
        if name not in groups or (name and name not in controllers):
            continue
        # In a container the mount shows the container's group at its root, and the path is that of the host.
        inside = os.path.relpath(groups[name], root)
        directory = Path(mount, "." if inside.startswith("..") else inside)
        for group in (directory, *directory.parents):
            if not str(group).startswith(mount):
                break
            quota = _quota_v2(group) if kind == "cgroup2" else _quota_v1(group)
            if quota is not None:
                yield quota


def _groups(own: str) -> dict[str, str]:
    """The path of this process's group for each controller; "" is version 2's."""
    found = {}
    for line in _lines(own):
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def _mounts(mounts: str) -> Iterator[tuple[str, list[str], str, str]]:
    """Kind, controllers, root and mount point of each cgroup file system."""
    for line in _lines(mounts):
        before, _, behind = line.partition(" - ")
        kind, _, options = [*behind.split(" "), "", ""][:3]
        if kind in ("cgroup", "cgroup2"):
            words = before.split(" ")
            yield kind, options.split(","), words[3], words[4]


def _quota_v2(group: Path) -> float | None:
    words = " ".join(_lines(group / "cpu.max")).split()
    return _ratio(*words) if len(words) == 2 else None


def _quota_v1(group: Path) -> float | None:
    quota, period = ("".join(_lines(group / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    if not quota.isdigit() or not period.isdigit() or not int(quota) or not int(period):
        return None  # "max", -1, or nothing there
    return int(quota) / int(period)


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
