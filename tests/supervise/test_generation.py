import os

import pytest

from lbproxy.settings import PoolSettings
from lbproxy.supervise.generation import read_env_file, resolve_generation


def pool(directory, **changes):
    return PoolSettings("web", command=("true",), directory=str(directory), **changes)


def env_of(tmp_path, text):
    path = tmp_path / ".env"
    path.write_text(text)
    return read_env_file(str(path))


def test_symlinks_are_resolved_once(tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v2").mkdir()
    link = tmp_path / "current"
    link.symlink_to("v1")
    first = resolve_generation(1, pool(link))
    link.unlink()
    link.symlink_to("v2")
    assert first.directory == str(tmp_path / "v1")
    assert resolve_generation(2, pool(link)).directory == os.path.realpath(tmp_path / "v2")


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"pool\.web\.directory: .*/gone: No such file or directory"):
        resolve_generation(1, pool(tmp_path / "gone"))


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="not a directory"):
        resolve_generation(1, pool(tmp_path / "file"))


def test_env_goes_over_the_env_file(tmp_path):
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    made = resolve_generation(3, pool(tmp_path, env=(("B", "env"), ("C", "env")), env_file=str(tmp_path / ".env")))
    assert dict(made.env) == {"A": "file", "B": "env", "C": "env"}
    assert made.number == 3


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ("  A = 1  ", "1"),
        ("A=", ""),
        ("A=a b", "a b"),
        ("A=a # comment", "a"),
        ("A=# comment", ""),
        ("A=a#b", "a#b"),
        ("A='a # $b \\n'", "a # $b \\n"),
        ('A="a\\nb \\"c\\" \\\\ \\x"', 'a\nb "c" \\ \\x'),
        ('A="a" # comment', "a"),
        ("A=a=b", "a=b"),
        ("A=café", "café"),
    ],
)
def test_a_line_is_read_as_dotenv_files_are_written(tmp_path, line, value):
    assert env_of(tmp_path, f"# first\n\n{line}\r\n") == {"A": value}


def test_every_mistake_is_told_with_its_line(tmp_path):
    with pytest.raises(ValueError) as caught:
        env_of(tmp_path, 'A=1\nnonsense\nB=\'open\n1C=2\nD="x" y\n')
    path = tmp_path / ".env"
    assert str(caught.value).splitlines() == [
        f"{path}:2: error: expected KEY=VALUE, got 'nonsense'",
        f"{path}:3: error: the quote ' is not closed",
        f"{path}:4: error: expected KEY=VALUE, got '1C=2'",
        f"{path}:5: error: nothing may follow the closing quote, got 'y'",
    ]


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"/none: error: No such file"):
        read_env_file(str(tmp_path / "none"))
    (tmp_path / "binary").write_bytes(b"A=\xff\n")
    with pytest.raises(ValueError, match=r"/binary: error: not UTF-8"):
        read_env_file(str(tmp_path / "binary"))
