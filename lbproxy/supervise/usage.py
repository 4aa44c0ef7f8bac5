"""CPU time and memory of processes, with all that belong to their session. One look through /proc for all of them.

Resident memory is taken from statm: reading it costs microseconds, where the proportional set size costs milliseconds.
A page that processes share counts for each of them.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SESSION, _TIMES = 3, slice(11, 15)  # fields of /proc/PID/stat behind the name: user, system, and both of dead children


@dataclass(frozen=True, slots=True)
class Usage:
    cpu_s: float  # since the processes began; with the children that have ended and were waited for
    resident_bytes: int


NOTHING = Usage(0.0, 0)


def read_usage(leaders: Collection[int]) -> dict[int, Usage]:
    """The usage of each session, by the pid of its leader. A session without a process is missing.

    All are missing while this process has no descriptor left to look with: what is measured must not fail for that.
    """
    found: dict[int, Usage] = {}
    try:
        names = os.listdir("/proc") if leaders else []
    except OSError:
        return found
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                stat = file.read()
            fields = stat[stat.rindex(b")") + 2 :].split()
            session = int(fields[_SESSION])
            if session not in leaders:
                continue
            with open(f"/proc/{name}/statm", "rb") as file:
                pages = int(file.read().split()[1])
        except (OSError, ValueError, IndexError):  # it has ended meanwhile
            continue
        before = found.get(session, NOTHING)
        cpu_s = sum(map(int, fields[_TIMES])) / _TICKS
        found[session] = Usage(before.cpu_s + cpu_s, before.resident_bytes + pages * _PAGE_BYTES)
    return found
