"""A directory of this lbproxy alone, which goes with it: the next one removes what a killed lbproxy has left.

Knows names, modes and one lock. Does not know what is put into the directory.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lbproxy.supervise.handed_on import HandedDirectory

PREFIX = "lbproxy-"  # of every such directory
LOCK = "owner"  # a file in it. Control keeps it locked: if it can be locked, its control is gone


@dataclass(slots=True)
class PrivateDirectory:
    """`lock_fd` holds the lock. The lock belongs to the open file, so it survives an exec that keeps the descriptor."""

    path: Path
    lock_fd: int

    @classmethod
    def make(cls, parent: str | None = None) -> "PrivateDirectory":
        """`parent`: as `place` finds it. Raises OSError."""
        where = parent or place() or tempfile.gettempdir()
        remove_stale(where)
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
        try:
            path.chmod(0o711)  # other users may pass through (a backend may run as one), and may not list it
            lock_fd = os.open(path / f"{LOCK}.new", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
            os.rename(path / f"{LOCK}.new", path / LOCK)  # a lock file is never visible unlocked
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return cls(path, lock_fd)

    @classmethod
    def take_over(cls, handed: HandedDirectory) -> "PrivateDirectory":
        os.set_inheritable(handed.lock_fd, False)
        return cls(Path(handed.path), handed.lock_fd)

    def hand_on(self) -> HandedDirectory:
        return HandedDirectory(str(self.path), self.lock_fd)

    def close(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock_fd)


def remove_stale(parent: str) -> None:
    """Remove the directories of killed controls."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if not name.startswith(PREFIX) or os.path.islink(path):
            continue
        with contextlib.suppress(OSError):
            if os.stat(path).st_uid != os.geteuid():
                continue
            lock = os.open(os.path.join(path, LOCK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def place() -> str | None:
    """The directory for private directories; None: that of temporary files.

    Never XDG_RUNTIME_DIR for root, because its backends may run as another user.
    """
    choices = ["/run"] if os.geteuid() == 0 else [os.environ.get("XDG_RUNTIME_DIR", "")]
    for choice in choices:
        with contextlib.suppress(OSError):
            if choice and len(choice) < 40 and os.access(choice, os.W_OK | os.X_OK) and os.path.isdir(choice):
                return choice
    return None
