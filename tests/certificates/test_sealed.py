"""A file's content in memory that nobody can change, and what is said of files that cannot be read."""

import os
from pathlib import Path

import pytest

from lbproxy.certificates.sealed import MOST_BYTES, Defect, Sealed, Stamp


def test_it_holds_the_content_and_nobody_can_change_it(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(b"x" * 200_000)
    sealed = Sealed(str(file))
    file.write_bytes(b"other")
    assert sealed.read() == b"x" * 200_000
    assert sealed.stamp.size_bytes == 200_000
    with pytest.raises(PermissionError):
        os.write(sealed.fileno(), b"y")
    with pytest.raises(PermissionError):
        os.ftruncate(sealed.fileno(), 0)


def test_another_user_can_open_it_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("key")
    file.chmod(0o600)
    sealed = Sealed(str(file))
    assert Path(sealed.path).stat().st_mode & 0o777 == 0o444
    assert Path(sealed.path).read_text() == "key"
    assert sealed.mode == 0o600


def test_its_descriptor_is_closed_with_it_and_no_child_inherits_it(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("key")
    sealed = Sealed(str(file))
    fd = sealed.fileno()
    assert not os.get_inheritable(fd)
    del sealed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "large").write_bytes(bytes(MOST_BYTES + 1))
    os.mkfifo(tmp_path / "fifo")
    for name, why in {
        "none": "does not exist",
        "link": "does not exist (the link leads to 'gone')",
        "": "is a directory",
        "fifo": "is not a regular file",
        "empty": "is empty",
        "large": "is larger than 1024 KiB",
        "empty/x": "cannot be read: not a directory",
        "a\0b": "is no path",
    }.items():
        with pytest.raises(Defect) as caught:
            Sealed(str(tmp_path / name) if name else str(tmp_path))
        assert caught.value.why == why


def test_a_file_of_just_now_may_change_without_another_stamp(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    stamp = Stamp.of((tmp_path / "a").stat())
    at = stamp.mtime_ns / 1e9
    assert not stamp.is_settled(at + 0.01)
    assert stamp.is_settled(at + 1.0)
