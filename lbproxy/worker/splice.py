"""Bytes from one socket to another without passing through Python: a pipe in the kernel between two splice calls.

Pays for large bodies only: a pipe costs two descriptors and four system calls. A pipe with bytes left in it is closed,
never used again. Knows nothing of what the bytes are.
"""

import fcntl
import os

PIPE_BYTES = 1024 * 1024  # asked for; what the kernel grants is enough in any case
KEPT_PIPES = 32
FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """`held` bytes are in it. Raises BlockingIOError when nothing can move, OSError as the sockets do."""

    __slots__ = ("_read", "_write", "held")

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.held = 0
        try:
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            return  # over the user's limit: the default of 64 KiB does

    def fill(self, source: int, most: int) -> int:
        """How many bytes came; 0 at the end."""
        count = os.splice(source, self._write, most, flags=FLAGS)
        self.held += count
        return count

    def drain(self, target: int) -> None:
        """Hand on what it holds, as far as it is taken."""
        self.held -= os.splice(self._read, target, self.held, flags=FLAGS)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Pipes:
    """The empty pipes of a worker, kept for the next large body."""

    def __init__(self) -> None:
        self._kept: list[Pipe] = []

    def take(self) -> Pipe | None:
        """None where no descriptor is left."""
        if self._kept:
            return self._kept.pop()
        try:
            return Pipe()
        except OSError:
            return None

    def give_back(self, pipe: Pipe) -> None:
        if pipe.held or len(self._kept) >= KEPT_PIPES:
            pipe.close()
        else:
            self._kept.append(pipe)

    def close(self) -> None:
        for pipe in self._kept:
            pipe.close()
        self._kept.clear()
