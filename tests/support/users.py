"""Tests in which lbproxy or a backend is another user."""

import os
import sys
from pathlib import Path

import pytest

NOBODY = 65534


def is_open(path: str) -> bool:
    """Whether every user may enter the directories above `path`, links followed."""
    real = Path(os.path.realpath(path))
    return all(parent.stat().st_mode & 0o001 for parent in (*Path(path).absolute().parents, *real.parents))


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not is_open(sys.executable) or not is_open(__file__),
    reason="only root may become another user, who must be able to execute this Python",
)


def open_to_all(directory: Path) -> Path:
    """The directory, into which every user may come and write from now on."""
    for parent in (directory, *directory.parents):
        if parent not in (Path("/"), Path("/tmp")):
            parent.chmod(parent.stat().st_mode | 0o011)
    directory.chmod(0o777)
    return directory
