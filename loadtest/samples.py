"""Resources of lbproxy's processes, seen from outside: memory, descriptors, threads, processes, connections, leases.

By role: control, guard, workers together. Knows /proc and `lbproxy status`.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean

import psutil
from support.serve import Serving

from measure import pss_bytes
from plot import Curve, Panel

MEMORY, FDS, THREADS, WORK = "memory, MiB (PSS)", "descriptors", "threads", "processes and work in hand"
MOST_GROWTH = 1.1
SLACK = {MEMORY: 1.0, FDS: 8.0, THREADS: 1.0, WORK: 4.0}  # below this nothing can be told from noise


def memory_mib(pid: int) -> float:
    return pss_bytes(pid) / 1024 / 1024


def descriptors(pid: int) -> float:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> float:
    return len(os.listdir(f"/proc/{pid}/task"))


LOOKS: dict[str, Callable[[int], float]] = {MEMORY: memory_mib, FDS: descriptors, THREADS: threads}


@dataclass(slots=True)
class Samples:
    """Values over time, by quantity and role."""

    lb: Serving
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def take(self, at_s: float) -> dict[str, float]:
        """Take one sample of everything. Returns the work in hand."""
        status = self.lb.status()
        children = psutil.Process(self.lb.pid).children(recursive=True)
        roles = {"control": [self.lb.pid], "workers": [one["pid"] for one in status["workers"] if one["pid"]]}
        for child in children:
            with suppress(psutil.Error):
                if "lbproxy.supervise.guard" in child.cmdline():
                    roles.setdefault("guard", []).append(child.pid)
        for what, look in LOOKS.items():
            for role, pids in roles.items():
                with suppress(OSError):  # it has just ended
                    self.curves[what][role].append((at_s, sum(map(look, pids))))
        work = {
            "processes": 1.0 + len(children),
            "connections": float(sum(one["connections"] for one in status["workers"])),
            "leases": float(sum(one["in_flight"] for pool in status["pools"].values() for one in pool["backends"])),
        }
        for name, value in work.items():
            self.curves[WORK][name].append((at_s, value))
        return work

    def grown(self) -> list[str]:
        """The quantities that have grown from the middle third to the last third by more than is allowed."""
        found = []
        for what, curves in self.curves.items():
            for role, curve in curves.items():
                middle, last = thirds(curve)
                if last > middle * MOST_GROWTH and last > middle + SLACK[what]:
                    found.append(f"{what} of {role}: {middle:.1f} in the middle third, {last:.1f} in the last")
        return found

    def figures(self) -> list[tuple[str, str]]:
        lines = []
        for what, curves in self.curves.items():
            told = []
            for role, curve in curves.items():
                middle, last = thirds(curve)
                told.append(f"{role} {middle:.1f} -> {last:.1f} (at most {max(value for _, value in curve):.1f})")
            lines.append((what, ", ".join(told)))
        return lines

    def panels(self) -> list[Panel]:
        return [Panel(what, dict(curves)) for what, curves in self.curves.items()]


def thirds(curve: Curve) -> tuple[float, float]:
    """The mean values in the middle third and in the last third of the time."""
    end = curve[-1][0]
    return _mean(curve, end / 3, 2 * end / 3), _mean(curve, 2 * end / 3, end)


def _mean(curve: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    values = [value for at, value in curve if begin <= at <= end]
    return fmean(values) if values else 0.0
