"""Who belongs to a backend, read from /proc: its session of processes, and whoever carries its mark.

A backend and all that it starts is one session; what leaves the session (setsid, daemons) still has the environment it
was born with, and in it a mark that is different for each process we start. (Who wants to outlive its backend has to
clear the mark: `env -u LBPROXY_RUN`.) The guard imports this: nothing but the standard library, and little of it.
"""

import contextlib
import os
import signal
from collections.abc import Collection

MARK = "LBPROXY_RUN"  # the variable; its value is the control's and the process's, with a dot between


def marked_pids(mark: str) -> list[int]:
    """The live processes whose mark is `mark`, or begins with it if it ends with a dot; an empty one is nobody's."""
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
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            facts = _stat(name)
            if facts is not None and facts[0] not in ("Z", "X") and (facts[2] in sessions or facts[3] in sessions):
                found.append(int(name))
    return found


def family_pids(session: int) -> list[int]:
    """The members of `session` and every descendant of theirs: sudo and others begin a session of their own."""
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
    """To the process group at once (no fork escapes), then to whoever is in the session in another group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, number)


def signal_others(session: int, number: int, mark: str = "", *, in_group: bool = True) -> list[int]:
    """To the members of the session that are left, and to those with the mark; without `in_group` only to those that
    are not in the session's own process group. Returns the pids of all."""
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
    """state, parent, process group, session; None: it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses too.
    state, parent, group, session = text[text.rindex(b")") + 2 :].split(None, 4)[:4]
    return state.decode(), int(parent), int(group), int(session)


def signal_name(number: int) -> str:
    """SIGKILL, or the bare number of one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
