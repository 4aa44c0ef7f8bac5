"""Challenges from a directory and from below certbot's path in it; and what is no file that may be served."""

import os
from pathlib import Path

import pytest

from lbproxy.worker.task.challenge_file import MOST_BYTES, read_challenge

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA"


def test_a_token_is_found_in_the_directory_and_where_certbot_puts_it(tmp_path: Path) -> None:
    assert read_challenge(str(tmp_path), TOKEN.encode()) is None
    webroot = tmp_path / ".well-known" / "acme-challenge"
    webroot.mkdir(parents=True)
    (webroot / TOKEN).write_bytes(b"below")
    assert read_challenge(str(tmp_path), TOKEN.encode()) == b"below"
    (tmp_path / TOKEN).write_bytes(b"here")
    assert read_challenge(str(tmp_path), TOKEN.encode()) == b"here"


def test_the_directory_itself_may_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / TOKEN).write_bytes(b"here")
    (tmp_path / "current").symlink_to("real")
    assert read_challenge(str(tmp_path / "current"), TOKEN.encode()) == b"here"


@pytest.mark.parametrize(
    "token", [b"", b".", b"..", b"../secret", b"a/b", b"a.b", b"a%2e", b"a\0", b"a\n", b"\xff", b"a" * 257]
)
def test_what_is_no_token_is_not_looked_for(token: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "inner" / "a").mkdir(parents=True)
    (tmp_path / "inner" / "a" / "b").write_bytes(b"secret")
    (tmp_path / "inner" / "a.b").write_bytes(b"secret")
    assert read_challenge(str(tmp_path / "inner"), token) is None


def test_symlinks_directories_pipes_and_large_files_are_none(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder").mkdir()
    os.mkfifo(inside / "pipe")
    (inside / "large").write_bytes(bytes(MOST_BYTES + 1))
    (inside / "fits").write_bytes(bytes(MOST_BYTES))
    (inside / ".well-known").symlink_to(outside)
    (outside / "acme-challenge").mkdir()
    (outside / "acme-challenge" / "token").write_bytes(b"secret")
    for token in (b"link", b"folder", b"pipe", b"large", b"token"):
        assert read_challenge(str(inside), token) is None, token
    assert read_challenge(str(inside), b"fits") == bytes(MOST_BYTES)


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for token in (b"folder", b"gone"):
        read_challenge(str(tmp_path), token)
    read_challenge(str(tmp_path / "gone"), b"a")
    assert len(os.listdir("/proc/self/fd")) == before
