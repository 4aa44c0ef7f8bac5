"""`lbproxy top`: what serves and how fast, once a second; `r` reloads, `d` drains."""

import threading
from typing import Any

import click
from rich.console import RenderableType

from lbproxy.cli.client import ConnectionBroke, ControlClient
from lbproxy.cli.options import Fail, Options, on_terminal, with_options
from lbproxy.cli.top_view import TopView, drain_verb
from lbproxy.cli.watch import watch
from lbproxy.telemetry.text import event_from_json, event_text


@click.command(short_help="What serves, and how fast; once a second.")
@click.argument("pool", required=False)
@with_options
def top(options: Options, pool: str | None) -> int:
    """What serves, and how fast, once a second, until q or Ctrl-C. Keys: arrows select a backend and the column to
    sort by; r reloads the pool of the selected backend, d drains or undrains the backend.

    Example: lbproxy top web
    """
    if not on_terminal():
        raise Fail(1, "lbproxy: top needs a terminal; lbproxy status --watch --json has the same numbers")
    watch(options, pool, Top(options))
    return 0


class Top:
    """The keys of `top`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._view = TopView()
        self._asked: tuple[str, dict[str, Any]] | None = None  # a change that waits for y
        self.is_busy = False  # a change goes on

    def learn(self, answer: dict[str, Any]) -> None:
        self._view.learn(answer)

    def draw(self, width: int, height: int) -> RenderableType:
        return self._view.draw(width, height)

    def press(self, key: str) -> bool:
        if self._asked is not None:
            (target, values), self._asked = self._asked, None
            self._view.message = ""
            if key == "y":
                self._begin(target, values)
            return True
        match key:
            case "q":
                return False
            case "up" | "k":
                self._view.move(-1)
            case "down" | "j":
                self._view.move(1)
            case "left" | "<":
                self._view.sort(-1)
            case "right" | ">":
                self._view.sort(1)
            case "r" | "d":
                self._ask(key)
        return True

    def _ask(self, key: str) -> None:
        selected = self._view.selected
        if selected is None:
            return
        if self.is_busy:
            self._view.message = "wait until the last change is done"
        elif key == "r":
            self._asked = "/v1/reload", {"pools": [selected["pool"]]}
            self._view.message = f"reload {selected['pool']}? y/n"
        else:
            verb = drain_verb(selected)
            self._asked = f"/v1/{verb}", {"backend": selected["id"]}
            self._view.message = f"{verb} {selected['id']}? y/n"

    def _begin(self, target: str, values: dict[str, Any]) -> None:
        self.is_busy = True
        # A daemon: `q` ends this command, and what was asked goes on.
        threading.Thread(target=self._carry_out, args=(target, values), daemon=True).start()

    def _carry_out(self, target: str, values: dict[str, Any]) -> None:
        try:
            with ControlClient.of(self._options).stream("POST", target, values) as stream:
                for line in stream:
                    event = event_from_json(line)
                    if event is not None and event.name != "reload.finished":
                        self._view.message = event_text(event).partition("\n")[0]
        except Fail as exc:
            self._view.message = exc.text.removeprefix("lbproxy: ").partition("\n")[0]
        except ConnectionBroke as exc:
            self._view.message = f"the connection broke: {exc}"
        finally:
            self.is_busy = False
