"""The options of every command, before or after its name, and the errors of a command.

Knows click. Does not know the control API or the configuration.
"""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

DEFAULT_CONFIG = "./lb.toml"
OUTPUT_CLOSED = 141  # what a shell shows for a program that SIGPIPE ended

F = TypeVar("F", bound=Callable[..., Any])
_COLORS = {"red": 31, "green": 32, "yellow": 33, "dim": 2}


class Fail(Exception):
    """The command ends with `exit_code`. `text` goes to standard error as it is, so it must name the program."""

    def __init__(self, exit_code: int, text: str = "") -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.text = text


@dataclass(frozen=True, slots=True)
class Options:
    config: str | None = None
    control: str | None = None
    color: str = "auto"
    verbosity: int = 0  # -v adds one, -q takes one away

    def over(self, outer: "Options") -> "Options":
        """Merge the options after the command's name (`self`) with those before it (`outer`)."""
        return Options(
            self.config or outer.config,
            self.control or outer.control,
            outer.color if self.color == "auto" else self.color,
            self.verbosity + outer.verbosity,
        )

    @property
    def config_path(self) -> str:
        return self.config or DEFAULT_CONFIG

    @property
    def control_paths(self) -> list[str]:
        """Where a running lbproxy may listen for commands."""
        if self.control:
            return [self.control]
        from lbproxy.config.control_path import control_paths

        return control_paths(self.config_path)

    @property
    def other_sockets(self) -> list[str]:
        """Where another lbproxy of this user may listen, if no file and no socket is named."""
        if self.config or self.control or os.path.exists(DEFAULT_CONFIG):
            return []
        from lbproxy.config.control_path import sockets_of_this_user

        return sockets_of_this_user()

    @property
    def quiet(self) -> bool:
        return self.verbosity < 0

    def colored(self, text: str, color: str) -> str:
        """`color`: red | green | yellow | dim. Follows --color, NO_COLOR and the terminal."""
        if self.color == "never" or (self.color == "auto" and (os.environ.get("NO_COLOR") or not on_terminal())):
            return text
        return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"


def on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def with_options(command: F) -> F:
    """The shared options for a command or the group; it gets them merged, as its first argument."""

    @click.pass_context
    @functools.wraps(command)
    def run(context: click.Context, /, **values: Any) -> Any:
        own = Options(
            values.pop("config"),
            values.pop("control"),
            values.pop("color") or "auto",
            values.pop("verbose") - values.pop("quiet"),
        )
        outer = context.parent.obj if context.parent is not None else Options()
        context.obj = own.over(outer)
        return command(context.obj, **values)

    decorators = [
        click.option(
            "-c",
            "--config",
            type=click.Path(readable=False),
            metavar="FILE",
            help="The configuration [LBPROXY_CONFIG; ./lb.toml].",
        ),
        click.option(
            "--control",
            type=click.Path(readable=False),
            metavar="PATH",
            help="The control socket [LBPROXY_CONTROL; what the file says].",
        ),
        click.option("--color", type=click.Choice(["auto", "always", "never"]), help="As NO_COLOR has it, too."),
        click.option("-v", "--verbose", count=True, help="Say more."),
        click.option("-q", "--quiet", count=True, help="Say less."),
    ]
    for decorator in reversed(decorators):
        run = decorator(run)
    return run  # type: ignore[return-value]
