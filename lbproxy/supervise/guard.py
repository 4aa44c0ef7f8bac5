"""The guard: a process that ends all backends when control is gone, even by kill -9.

Reads "+123" and "-123" from standard input, a line for each process group (and session) to remember or to forget, and
"=abc", control's mark. Processes with the mark are ended too: daemons, hung workers, and backends that control had no
time to report.
At end of file the guard sends TERM to all, KILL to those left after 2 seconds, and exits. Imports almost nothing.
(A parent-death signal is no answer: it follows the thread that spawned, setuid clears it, it misses grandchildren.)
"""

import contextlib
import os
import select
import signal
import time

from lbproxy.descriptors import open_missing_streams
from lbproxy.supervise.session import marked_pids, session_pids

GRACE_S = 2.0
EXEC_S = 0.05  # a child of control carries its mark only after exec


def main() -> None:
    open_missing_streams()
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    mark = ""
    with open(0, "rb", buffering=0, closefd=False) as orders:
        rest = b""
        while data := orders.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                match line[:1]:
                    case b"+":
                        groups.add(int(line[1:]))
                    case b"-":
                        groups.discard(int(line[1:]))
                    case b"=":
                        mark = line[1:].decode() + "."
    end(groups, mark)


def end(groups: set[int], mark: str) -> None:
    wait_gone(send(groups, mark, signal.SIGTERM), GRACE_S)
    select.select([], [], [], EXEC_S)
    # Repeated until none is left: a process born between the look and the KILL is found by the next look.
    for _ in range(50):
        left = send(groups, mark, signal.SIGKILL)
        if not left:
            return
        wait_gone(left, 0.2)


def send(groups: set[int], mark: str, number: int) -> list[int]:
    """Signal all processes of `groups` and all with the mark. Returns their pids."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
            os.killpg(group, signal.SIGCONT)  # a stopped process would not handle TERM
    found = {*session_pids(groups), *marked_pids(mark)} - {os.getpid()}
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) not in groups:  # a second TERM means "now" to many programs
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)
    return sorted(found)


def wait_gone(pids: list[int], limit_s: float) -> None:
    """Returns when all are gone (their pidfds tell), or after `limit_s`."""
    poll = select.poll()
    open_fds = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(pid)
            open_fds.add(fd)
            poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + limit_s
    while open_fds and (left_s := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left_s * 1000):
            poll.unregister(fd)
            open_fds.discard(fd)
            os.close(fd)
    for fd in open_fds:
        os.close(fd)


if __name__ == "__main__":
    main()
