"""The guard: a process that ends all backends when control is gone, even by kill -9.

Reads "+123" and "-123" from standard input, a line for each process group (and session) to remember or to forget.
At end of file: TERM to all, KILL to what is left after 2 seconds, exit. Knows nothing else; imports almost nothing.
(A parent-death signal is no answer: it follows the thread that spawned, setuid clears it, it misses grandchildren.)
"""

import contextlib
import os
import select
import signal
import time

from lbproxy.supervise.session import members

GRACE_S = 2.0


def main() -> None:
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    with open(0, "rb", buffering=0, closefd=False) as orders:
        rest = b""
        while data := orders.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                group = int(line[1:])
                (groups.add if line.startswith(b"+") else groups.discard)(group)
    if groups:
        end(groups)


def end(groups: set[int]) -> None:
    send(groups, signal.SIGTERM)
    wait_gone(members(groups), GRACE_S)
    # Once more while somebody is left: what is born between the look and the KILL is found by the next look.
    for _ in range(50):
        left = members(groups)
        if not left:
            return
        send(groups, signal.SIGKILL)
        wait_gone(left, 0.2)


def send(groups: set[int], number: int) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
            os.killpg(group, signal.SIGCONT)  # a stopped process would not see TERM
    for pid in members(groups):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) not in groups:  # twice TERM means "now" to many
                os.kill(pid, number)


def wait_gone(pids: list[int], limit_s: float) -> None:
    """Until all are gone, at most `limit_s`: their pidfds tell."""
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
