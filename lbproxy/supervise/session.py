"""The processes of a backend, read from /proc: its session, and the processes that carry its mark.

A backend and the processes that it starts are one session. A process that leaves the session (setsid, daemons) still
has the environment that it was born with, and in it a mark, which differs for each process that lbproxy starts. (A
process that must outlive its backend has to clear the mark: `env -u LBPROXY_RUN`.) The guard imports this module, so it
uses little of the standard library and nothing else.
"""

import contextlib
import os
import signal
from collections.abc import Collection, Iterator

MARK = "LBPROXY_RUN"  # the variable; its value is the number of control and that of the process, with a dot between


def marked_pids(mark: str) -> list[int]:
    """The live processes whose mark is `mark`, or begins with `mark` if that ends with a dot. None for an empty one."""
    wanted = f"{MARK}={mark}".encode() + (b"" if mark.endswith(".") else b"\0")
    found = []
    for name in os.listdir("/proc") if mark else []:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                environ = file.read()
                if environ.startswith(wanted) or b"\0" + wanted in environ:
                    found.append(int(name))
    return found


def session_pids(sessions: Collection[int]) -> list[int]:
    """The live processes (no zombies) whose session, or process group, is one of `sessions`."""
    return [pid for pid, _ in _members(sessions)]


def pids_by_session(sessions: Collection[int]) -> dict[int, list[int]]:
    """The same processes by their session. A session without a live process is missing."""
    found: dict[int, list[int]] = {}
    for pid, session in _members(sessions):
        found.setdefault(session, []).append(pid)
    return found


def _members(sessions: Collection[int]) -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            facts = _stat(name)
            if facts is not None and facts[0] not in ("Z", "X"):
                _, _, group, session = facts
                if session in sessions or group in sessions:
                    yield int(name), session if session in sessions else group


def family_pids(session: int) -> list[int]:
    """The processes of `session` and all their descendants: sudo and others begin a session of their own."""
    parents = {}
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            facts = _stat(name)
            if facts is not None:
                parents[int(name)] = facts[1]
                if session in (facts[2], facts[3]):
                    found.add(int(name))
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return sorted(found)


def signal_session(session: int, number: int) -> None:
    """Signal the process group of `session` in one call, so that no fork escapes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, number)


def signal_others(session: int, number: int, mark: str = "", *, in_group: bool = True) -> list[int]:
    """Signal the other processes of the session and those with the mark. Returns the pids of all of them.

    Without `in_group` the processes in the session's own process group get no signal.
    """
    left = sorted({*session_pids((session,)), *marked_pids(mark)} - {session})
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if in_group or os.getpgid(pid) != session:
                os.kill(pid, number)
    return left


def is_zombie(pid: int) -> bool:
    facts = _stat(str(pid))
    return facts is not None and facts[0] == "Z"


def _stat(pid: str) -> tuple[str, int, int, int] | None:
    """State, parent, process group and session of a process; None: it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name in parentheses may hold any character, also a parenthesis.
    state, parent, group, session = text[text.rindex(b")") + 2 :].split(None, 4)[:4]
    return state.decode(), int(parent), int(group), int(session)


def signal_name(number: int) -> str:
    """The name of a signal, such as SIGKILL; "SIG" and the number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
