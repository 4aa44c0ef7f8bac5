"""A reload on a terminal: one block that is drawn again and again, a line for each backend.

The only module that imports rich. `Progress` knows what to show and nothing of terminals.
"""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Fail
from lbproxy.telemetry import events as e
from lbproxy.telemetry.text import event_text, printable, seconds

ASK_EVERY_S = 1.0


class Progress:
    """The state of each backend so far, in the order of their first events."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.title = "reload"
        self.notes: list[str] = []
        self._states: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._draining: dict[str, int] = {}
        self._now = now

    def feed(self, event: e.Event) -> None:
        match event:
            case e.ReloadStarted() | e.ReloadFinished():
                self.title = event_text(event)
            case e.ReloadRollingBack():
                self.notes.append(event_text(event))
            case e.BackendStarting(_, backend):
                self._set(backend, "starting")
            case e.BackendReady(_, backend, after_s):
                self._set(backend, f"ready after {seconds(after_s)}")
            case e.BackendProved(_, backend, after_s):
                self._set(backend, f"proved after {seconds(after_s)}")
            case e.BackendNotReady(_, backend, why) | e.BackendExited(_, backend, _, why):
                self._set(backend, why)
            case e.BackendDraining(_, backend, leases):
                self._set(backend, "draining")
                self._draining[backend] = leases
            case e.BackendDrained(_, backend, after_s, cut):
                self._set(backend, f"drained in {seconds(after_s)}" + (f", {cut} cut" if cut else ""))
            case e.BackendTakenBack(_, backend):
                self._set(backend, "taken back")
            case e.BackendStopped(_, backend, how, _, why):
                self._set(backend, f"stopped ({how})" + (f": {why}" if why else ""))

    def left(self, in_flight: dict[str, int]) -> None:
        """The leases of each backend, from `status`."""
        for backend in list(self._draining):
            self._draining[backend] = in_flight.get(backend, 0)

    def rows(self) -> list[tuple[str, str]]:
        return [(backend, self._row(backend, state)) for backend, state in list(self._states.items())]

    def _row(self, backend: str, state: str) -> str:
        in_hand = self._draining.get(backend)  # rich's thread draws while ours feeds
        if in_hand is not None:
            return f"draining, {in_hand} in hand, {seconds(self._now() - self._since[backend])}"
        return f"starting, {seconds(self._now() - self._since[backend])}" if state == "starting" else printable(state)

    def _set(self, backend: str, state: str) -> None:
        self._draining.pop(backend, None)
        self._states[backend] = state
        self._since[backend] = self._now()


class LiveBlock:
    """Draws a Progress four times a second, in rich's thread. Reads `status` once a second for the leases left."""

    def __init__(self, client: ControlClient, *, colored: bool, console: Console | None = None) -> None:
        self.progress = Progress()
        self._client = client
        self._asked_at = time.monotonic()
        self._live = Live(
            console=console or Console(no_color=not colored, highlight=False),
            get_renderable=self._draw,
            refresh_per_second=4,
        )

    def start(self) -> None:
        self._live.start()

    def show(self, values: dict[str, Any], event: e.Event | None) -> None:
        if event is not None and not isinstance(event, e.ReloadDone):
            self.progress.feed(event)

    def end(self) -> None:
        self._live.stop()

    def _draw(self) -> Table:
        if time.monotonic() - self._asked_at >= ASK_EVERY_S:
            self._asked_at = time.monotonic()
            self._ask()
        block = Table.grid(padding=(0, 2))
        block.add_row(Text(self.progress.title))
        for note in self.progress.notes.copy():
            block.add_row(Text(note, style="red"))
        rows = Table.grid(padding=(0, 2))
        for backend, state in self.progress.rows():
            rows.add_row(Text(f"  {backend}"), Text(state))
        block.add_row(rows)
        return block

    def _ask(self) -> None:
        try:
            status = self._client.get("/v1/status")
            backends = [backend for pool in status["pools"].values() for backend in pool["backends"]]
            self.progress.left({f"{one['id']}@{one['generation']}": one["in_flight"] for one in backends})
        except (Fail, KeyError, TypeError):
            return  # the stream of events tells how the reload ends
