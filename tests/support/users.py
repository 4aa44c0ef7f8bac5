"""Tests in which lbproxy or a backend is another user."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
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


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A directory into which every user may come and write. (pytest closes the one of `tmp_path` to other users.)"""
    made = Path(tempfile.mkdtemp(prefix="lb-open-"))
    try:
        made.chmod(0o777)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
