"""Bytes from one socket to another without passing through Python: a pipe in the kernel between two splice calls.

Pays for large bodies only: a pipe costs two descriptors and four system calls. A pipe with bytes left in it is closed,
never used again. Knows nothing of what the bytes are.
"""

import errno
import fcntl
import os
import socket
from contextlib import suppress

PIPE_BYTES = 1024 * 1024  # asked for: 512 KiB cost 5 % more, 256 KiB 12 %
LEAST_PIPE_BYTES = 64 * 1024  # the default. Who has too many is granted two pages: reading and sending is cheaper
KEPT_PIPES = 32
KEPT_S = 60.0
MOST_PIPES = 64  # as many of that size as the kernel grants a user; slow readers hold no more than 64 MiB
FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


def are_plain(*socks: socket.socket) -> bool:
    """False with TLS: its socket changes the bytes, so they cannot move in the kernel, and its session is state of this
    process, so another process cannot go on with the descriptor."""
    return all(type(sock) is socket.socket for sock in socks)


class Pipe:
    """`held` bytes are in it; true if there are any. Raises BlockingIOError when nothing can move, OSError as the
    sockets do, or when it is made and there is no descriptor or not enough memory for it."""

    __slots__ = ("_read", "_write", "held")

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.held = 0
        with suppress(OSError):  # over the user's limit
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        if fcntl.fcntl(self._write, fcntl.F_GETPIPE_SZ) < LEAST_PIPE_BYTES:
            self.close()
            raise OSError(errno.ENOMEM, "the user has too many large pipes")

    def __len__(self) -> int:
        return self.held

    def fill(self, source: int, most: int) -> int:
        """How many bytes came; 0 at the end."""
        count = os.splice(source, self._write, most, flags=FLAGS)
        self.held += count
        return count

    def drain(self, target: int) -> None:
        """Hand on what it holds, as far as it is taken."""
        self.held -= os.splice(self._read, target, self.held, flags=FLAGS)

    def read(self) -> bytes:
        """All that it holds, after all."""
        data = b""
        while len(data) < self.held:
            data += os.read(self._read, self.held)
        self.held = 0
        return data

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Pipes:
    """The pipes of a worker. Those that are empty are kept for the next large body."""

    def __init__(self) -> None:
        self._kept: list[Pipe] = []
        self._taken = 0
        self._spare = 0  # kept pipes that were not needed since the last sweep
        self._swept_at = 0.0

    def sweep(self, now: float) -> None:
        """Once in KEPT_S: close the kept pipes that no body needed in that time."""
        if now - self._swept_at < KEPT_S:
            return
        self._swept_at = now
        for _ in range(min(self._spare, len(self._kept))):
            self._kept.pop(0).close()
        self._spare = len(self._kept)

    def take(self) -> Pipe | None:
        """None where there are enough, or no descriptor is left. Else it is to be given back."""
        if self._taken >= MOST_PIPES:
            return None
        try:
            pipe = self._kept.pop() if self._kept else Pipe()
        except OSError:
            return None
        self._spare = min(self._spare, len(self._kept))
        self._taken += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        self._taken -= 1
        if pipe.held or len(self._kept) >= KEPT_PIPES:
            pipe.close()
        else:
            self._kept.append(pipe)

    def close(self) -> None:
        for pipe in self._kept:
            pipe.close()
        self._kept.clear()
