"""A directory that goes with its lbproxy, and is removed by the next one after a kill -9."""

import fcntl
import os
import stat

import pytest

from lbproxy.supervise.private_directory import LOCK, PREFIX, PrivateDirectory, place, remove_stale


def test_it_can_be_passed_through_but_not_listed_by_others(tmp_path):
    directory = PrivateDirectory.make(str(tmp_path))
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o711
    (directory.path / "file").touch()
    directory.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_control_has_left_is_removed_and_nothing_else(tmp_path):
    alive = PrivateDirectory.make(str(tmp_path))
    stale = tmp_path / f"{PREFIX}stale"
    other = tmp_path / f"{PREFIX}that-is-not-ours"
    for directory in (stale / "1", other):
        directory.mkdir(parents=True)
    (stale / LOCK).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(alive.path)
    remove_stale(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{PREFIX}link", other.name, alive.path.name]), (
        "its control lives"
    )
    alive.close()


def test_the_lock_lives_as_long_as_the_descriptor(tmp_path):
    directory = PrivateDirectory.make(str(tmp_path))
    with open(directory.path / LOCK) as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        copy = os.dup(directory.lock_fd)
        os.close(directory.lock_fd)
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    PrivateDirectory(directory.path, copy).close()


def test_root_never_takes_the_runtime_directory_of_a_user(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert place() in ("/run", None)
