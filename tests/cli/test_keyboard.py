import os
import pty
import sys
import termios

import pytest

from lbproxy.cli.keyboard import Keyboard, keys_of


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("q", ["q"]),
        ("\x1b[A\x1b[Bj", ["up", "down", "j"]),
        ("\x1bOC\x1bOD", ["right", "left"]),
        ("\x1b", ["\x1b"]),
        ("", []),
    ],
)
def test_arrows_have_names_and_other_keys_are_characters(text: str, keys: list[str]) -> None:
    assert keys_of(text) == keys


def test_a_key_comes_without_enter_and_the_terminal_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        before = termios.tcgetattr(theirs)
        with Keyboard() as keyboard:
            assert keyboard.wait(0.0) == []
            os.write(ours, b"r")
            assert keyboard.wait(5.0) == ["r"]
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


def test_without_a_terminal_it_only_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with Keyboard() as keyboard:
            assert keyboard.wait(0.001) == []
