"""The examples of the help: every command has one, and every line is one that lbproxy takes."""

import shlex

import click
import pytest

from lbproxy.cli.examples import EXAMPLES, epilog
from lbproxy.cli.main import COMMANDS, lbproxy, run

BUILT = [name for name, module in COMMANDS.items() if module is not None]
LINES = [(name, line) for name in BUILT for line in EXAMPLES.get(name, ())]


@pytest.mark.parametrize("name", BUILT)
def test_the_help_of_every_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"], {}) == 0
    out = capsys.readouterr().out
    assert "  Example" in out
    for line in EXAMPLES[name]:
        assert f"\n    {line}\n" in out


@pytest.mark.parametrize(("name", "line"), LINES, ids=[line for _, line in LINES])
def test_every_example_is_a_command_that_lbproxy_takes(name: str, line: str) -> None:
    words = shlex.split(line.removeprefix("source <(").removesuffix(")").partition(" > ")[0])
    assert words[:2] == ["lbproxy", name]
    command = lbproxy.get_command(click.Context(lbproxy), name)
    assert command is not None
    with lbproxy.make_context("lbproxy", [name]) as context:
        command.make_context(name, words[2:], parent=context)  # raises UsageError


def test_a_command_without_examples_has_no_empty_list() -> None:
    assert epilog("nothing") is None
    assert epilog("version") == "\b\nExample:\n  lbproxy version"
