"""The exact memory of sessions, from /proc. A page that n processes share counts as 1/n of a page for each of them.

The proportional set size (smaps_rollup) costs milliseconds, so it is for sessions whose resident set (usage.py), which
is never smaller, is over a limit.
"""

import os
import re
from collections.abc import Collection

from lbproxy.supervise.session import pids_by_session

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PSS = re.compile(rb"^Pss:\s+(\d+) kB$", re.M)


def proportional_bytes(leaders: Collection[int]) -> dict[int, int]:
    """The proportional set size of each session, by the pid of its leader. A session without a process is missing."""
    sessions = pids_by_session(leaders) if leaders else {}
    return {leader: sum(map(_bytes_of, pids)) for leader, pids in sessions.items()}


def _bytes_of(pid: int) -> int:
    """0: the process is gone. Of a program whose maps the kernel hides, only the pages that no file backs count."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            found = _PSS.search(file.read())
        if found is not None:
            return int(found[1]) * 1024
    except OSError:
        pass
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES
