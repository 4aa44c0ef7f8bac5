"""A service manager's end of sd_notify: a socket that takes every message, in order, as systemd's does."""

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


class NotifySocket:
    """`messages`: each datagram as a dictionary of its lines."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.messages: list[dict[str, str]] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind("\0" + where[1:] if where.startswith("@") else where)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while data := self._sock.recv(65536):
            self.messages.append(dict(line.split("=", 1) for line in data.decode().split("\n")))

    def close(self) -> None:
        """Read what is there, then end."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as last:
            last.sendto(b"", self._sock.getsockname())
        self._thread.join()
        self._sock.close()

    def states(self) -> list[str]:
        """READY, RELOADING and STOPPING in the order in which they came."""
        names = ("READY", "RELOADING", "STOPPING")
        return [name for message in list(self.messages) for name in names if message.get(name) == "1"]

    def statuses(self) -> list[str]:
        return [message["STATUS"] for message in list(self.messages) if "STATUS" in message]

    def count(self, name: str) -> int:
        return sum(name in message for message in list(self.messages))


@contextlib.contextmanager
def listening(directory: Path | None = None) -> Iterator[NotifySocket]:
    """A path in `directory`, or an abstract socket."""
    where = f"@lbproxy-test-{os.getpid()}-{secrets.token_hex(4)}" if directory is None else str(directory / "notify")
    taken = NotifySocket(where)
    try:
        yield taken
    finally:
        taken.close()
