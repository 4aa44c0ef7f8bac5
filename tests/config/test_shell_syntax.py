"""More in test_hints.py, where the hints are followed."""

import pytest

from lbproxy.config.shell_syntax import find


def test_what_can_be_said_in_the_configuration_is_suggested_too() -> None:
    assert 'or write env = { FOO = "1" }' in str(find("FOO=1 a"))
    assert 'or write directory = "app"' in str(find("cd app && a"))
    assert "or write {port}" in str(find("a $PORT"))


@pytest.mark.parametrize("command", ["", "a b c", "a 'x && y'", "a x=1", 'a "$"', "a -D{port}"])
def test_plain_commands_are_plain(command: str) -> None:
    assert find(command) is None
