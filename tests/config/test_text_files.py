"""What can be read of a file, and nothing for what cannot."""

from pathlib import Path

from lbproxy.config.text_files import MOST_BYTES, beginning_of


def test_the_beginning_is_read_whatever_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_bytes(b"caf\xc3\xa9 \xff" + b"x" * MOST_BYTES)
    text = beginning_of(path)
    assert text.startswith("café \ufffdxxx")
    assert len(text) == MOST_BYTES


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    assert [beginning_of(path) for path in (tmp_path, tmp_path / "none", "a\0b")] == ["", "", ""]
