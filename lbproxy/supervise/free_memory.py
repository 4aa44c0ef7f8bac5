"""How much memory new processes can have: what is free in the host, and in the cgroups of this process.

A backend is a child of lbproxy, so the limits of lbproxy's cgroups are the backend's.
"""

from dataclasses import dataclass
from pathlib import Path

from lbproxy.config.cgroups import cgroups, lines

_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
_UNLIMITED_BYTES = 1 << 60  # version 1 writes a number near 2**63 where there is no limit


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """None: not known, or no limit."""

    host_bytes: int | None
    cgroup_bytes: int | None

    @property
    def least_bytes(self) -> int | None:
        known = [number for number in (self.host_bytes, self.cgroup_bytes) if number is not None]
        return min(known, default=None)


def free_memory(
    meminfo: str = "/proc/meminfo", own: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo"
) -> FreeMemory:
    """Reads /proc and the cgroup file systems."""
    found = [free for version, group in cgroups("memory", own, mounts) if (free := _free(version, group)) is not None]
    available = _fields(meminfo, ":").get("MemAvailable")
    return FreeMemory(None if available is None else available * 1024, min(found, default=None))


def _free(version: int, group: Path) -> int | None:
    """What is free below the limit of one group; None if it has none."""
    limit_file, usage_file, cache = _FILES[version]
    limit, usage = ("".join(lines(group / name)) for name in (limit_file, usage_file))
    if not limit.isdigit() or not usage.isdigit() or int(limit) >= _UNLIMITED_BYTES:
        return None
    # The kernel drops file pages that were not used for a while before it kills a process.
    droppable = _fields(group / "memory.stat", " ").get(cache, 0)
    return max(0, int(limit) - max(0, int(usage) - droppable))


def _fields(path: str | Path, separator: str) -> dict[str, int]:
    """The numbers of a file with a name and a number in each line."""
    found = {}
    for line in lines(path):
        name, _, number = line.partition(separator)
        words = number.split()
        if words and words[0].isdigit():
            found[name] = int(words[0])
    return found
