"""The screen of `status --watch` and `top`: asks once a second, draws, and gives every key to its view.

Knows the terminal. Does not know what is drawn.
"""

import sys
import threading
import time
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from lbproxy.cli.client import ControlClient
from lbproxy.cli.keyboard import Keyboard
from lbproxy.cli.options import Options, on_terminal
from lbproxy.cli.status_document import exit_code, status_of
from lbproxy.cli.status_text import status_lines
from lbproxy.telemetry.words import compact

EVERY_S = 1.0
BUSY_S = 0.25  # between two drawings while something goes on


class View(Protocol):
    def learn(self, answer: dict[str, Any]) -> None:
        """The newest status document."""

    def draw(self, width: int, height: int) -> RenderableType: ...

    def press(self, key: str) -> bool:
        """Whether to go on."""

    @property
    def is_busy(self) -> bool:
        """Whether there is something new to draw between two documents."""


def watch(options: Options, pool: str | None, view: View) -> None:
    """Draw until the view has enough. Raises Fail when control does not answer."""
    client = ControlClient.of(options)
    view.learn(status_of(client, pool))  # before the screen is taken: a failure is said where the command was typed
    console = Console(no_color=not options.colored("", "red"), highlight=False)
    with Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        ask_at = time.monotonic() + EVERY_S
        while True:
            live.update(view.draw(console.size.width, console.size.height), refresh=True)
            left_s = ask_at - time.monotonic()
            for key in keyboard.wait(min(BUSY_S, left_s) if view.is_busy else left_s):
                if not view.press(key):
                    return
            if time.monotonic() >= ask_at:
                view.learn(status_of(client, pool))
                ask_at = time.monotonic() + EVERY_S


class StatusView:
    """What `lbproxy status` prints. The last line says how many lines have no room."""

    is_busy = False

    def __init__(self, options: Options) -> None:
        self._options = options
        self.answer: dict[str, Any] = {}

    def learn(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def draw(self, width: int, height: int) -> Text:
        lines = status_lines(self.answer, self._options, width)
        if len(lines) > height:
            lines[height - 1 :] = [f"… {len(lines) - height + 1} more lines"]
        return Text("\n", no_wrap=True).join(Text.from_ansi(line, no_wrap=True) for line in lines)

    def press(self, key: str) -> bool:
        return key != "q"


def watch_status(options: Options, pool: str | None, *, as_json: bool) -> int:
    """Show the status once a second; where there is no terminal, or as JSON, one after the other. Returns the exit
    code of the last one."""
    view = StatusView(options)
    if on_terminal() and not as_json:
        watch(options, pool, view)
        return exit_code(view.answer)
    client = ControlClient.of(options)
    while True:
        answer = status_of(client, pool)
        print(compact(answer) if as_json else "\n".join([*status_lines(answer, options), ""]), flush=True)
        if sys.stdout is None:
            return exit_code(answer)
        threading.Event().wait(EVERY_S)
