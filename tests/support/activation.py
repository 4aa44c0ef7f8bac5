"""A service manager that makes listening sockets and starts lbproxy with them: descriptors from 3 on, sd_listen_fds(3).

The sockets stay with the test, as they stay with systemd: clients wait in their queues while no lbproxy runs.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

ACTIVATOR = """
import fcntl, os, socket, sys
path, names, *command = sys.argv[1:]
hand = socket.socket(socket.AF_UNIX)
hand.connect(path)
_, fds, _, _ = socket.recv_fds(hand, 1, 16)
for number, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]):
    os.dup2(fd, 3 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names}
os.execvp(command[0], command)
"""


def tcp(*, reuse_port: bool, owner: int | None = None) -> socket.socket:
    """A socket as a .socket unit with ListenStream=127.0.0.1:… makes it; `owner` is another user's number."""
    sock = socket.socket()
    if owner is not None:
        os.fchown(sock.fileno(), owner, -1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(1024)
    return sock


def unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(1024)
    return sock


@contextlib.contextmanager
def activating(directory: Path, **sockets: socket.socket) -> Iterator[list[str]]:
    """The prefix of a command that is started with `sockets`, any number of times."""
    with socket.socket(socket.AF_UNIX) as door, contextlib.ExitStack() as opened:
        for sock in sockets.values():
            opened.enter_context(sock)
        path = str(directory / "hand")
        door.bind(path)
        door.listen(8)

        def hand_over() -> None:
            with contextlib.suppress(OSError):  # the door is shut
                while True:
                    taker, _ = door.accept()
                    with taker:
                        socket.send_fds(taker, [b"x"], [sock.fileno() for sock in sockets.values()])

        thread = threading.Thread(target=hand_over, daemon=True)
        thread.start()
        yield [sys.executable, "-c", ACTIVATOR, path, ":".join(sockets)]
        door.shutdown(socket.SHUT_RDWR)
        thread.join()
