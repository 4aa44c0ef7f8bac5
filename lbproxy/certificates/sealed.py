"""A file's content in sealed memory (memfd_create(2)): a descriptor that can be read, and that no process can change.

A private key goes from its file to the kernel's memory and from there to OpenSSL; Python sees it only in the buffer of
`read`, which is overwritten. The descriptor is closed with the last reference to the object, so a message on its way
keeps what it carries.
"""

import fcntl
import os
import stat
from dataclasses import dataclass

from lbproxy.errors import LbproxyError

MOST_BYTES = 1024 * 1024  # a file of certificates has some KiB
_READABLE = 0o444  # also by a worker that runs as another user, which opens /proc/self/fd/N
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_UNSETTLED_S = 0.05  # the clock of mtime has steps of some ms: a file written just now may change unseen


class Defect(LbproxyError):
    """A file that cannot be used: which one, and why."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"{file!r} {why}")
        self.file = file
        self.why = why


@dataclass(frozen=True, slots=True)
class Stamp:
    """What `stat` says of a file, links followed. Two stamps of one path are equal as long as the file is the same."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Stamp":
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def is_settled(self, now: float) -> bool:
        """Whether the next change of the file is sure to give another stamp. `now`: seconds of the epoch."""
        return abs(now - self.mtime_ns / 1e9) > _UNSETTLED_S


class Sealed:
    """The content of one file at one time."""

    __slots__ = ("_fd", "file", "mode", "stamp")

    def __init__(self, file: str) -> None:
        """Raises Defect."""
        self._fd = -1
        self.file = file
        try:
            source = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                found = os.fstat(source)
                self.stamp, self.mode = Stamp.of(found), stat.S_IMODE(found.st_mode)
                if not stat.S_ISREG(found.st_mode):
                    raise Defect(file, "is a directory" if stat.S_ISDIR(found.st_mode) else "is not a regular file")
                if not 0 < found.st_size <= MOST_BYTES:
                    raise Defect(file, f"is larger than {MOST_BYTES // 1024} KiB" if found.st_size else "is empty")
                self._fill(source)
            finally:
                os.close(source)
        except FileNotFoundError:
            raise Defect(file, f"does not exist{_behind_a_link(file)}") from None
        except OSError as exc:
            raise Defect(file, f"cannot be read: {(exc.strerror or str(exc)).lower()}") from None
        except ValueError:
            raise Defect(file, "is no path") from None

    def _fill(self, source: int) -> None:
        self._fd = os.memfd_create("lbproxy-pem", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(self._fd, _READABLE)
        left = MOST_BYTES
        while left > 0 and (count := os.sendfile(self._fd, source, None, left)):
            left -= count
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def fileno(self) -> int:
        return self._fd

    @property
    def path(self) -> str:
        """A path for OpenSSL, in this process."""
        return f"/proc/self/fd/{self._fd}"

    def read(self) -> bytearray:
        """The content. The caller overwrites it if it holds a key."""
        content = bytearray(os.fstat(self._fd).st_size)
        os.preadv(self._fd, [content], 0)
        return content


def _behind_a_link(file: str) -> str:
    return f" (the link leads to {os.readlink(file)!r})" if os.path.islink(file) else ""
