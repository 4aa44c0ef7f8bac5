"""A reload on a terminal: one block that is drawn again and again, never taller than the terminal.

`Progress` knows what to show and nothing of terminals; `LiveBlock` draws it.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
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
LEAST_ROWS = 3  # of backends, however low the terminal is
_FINISHED = ("proved", "stopped", "taken back")


@dataclass(slots=True)
class Row:
    """One backend. `state`: starting, ready, proved, draining, drained, stopped, taken back or failed."""

    pool: str
    state: str
    text: str
    since: float
    leases: int = 0
    facts: dict[str, Any] = field(default_factory=dict)  # of this backend in the status document


class Progress:
    """The state of each backend so far, in the order of their first events."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.notes: list[tuple[str, str]] = []  # text, style
        self._title = "reload"
        self._sizes: dict[str, int] = {}  # how many new backends each pool gets; 0: not known
        self._rows: dict[str, Row] = {}
        self._now = now
        self._began = now()

    def feed(self, event: e.Event) -> None:
        match event:
            case e.ReloadStarted(pools=pools, sizes=sizes):
                self._title = event_text(event)
                self._sizes = dict(zip(pools, sizes or (0,) * len(pools), strict=True))
            case e.ReloadRollingBack() | e.ReloadPaused():
                self.notes.append((event_text(event), "red"))
            case e.Notice(text):
                self.notes.append((text, "yellow"))
            case e.BackendStarting(pool, backend):
                self._set(pool, backend, "starting")
            case e.BackendReady(pool, backend, after_s):
                self._set(pool, backend, "ready", f"ready after {seconds(after_s)}")
            case e.BackendProved(pool, backend, after_s):
                self._set(pool, backend, "proved", f"proved after {seconds(after_s)}")
            case e.BackendNotReady(pool, backend, why) | e.BackendExited(pool, backend, _, why):
                self._set(pool, backend, "failed", why)
            case e.BackendDraining(pool, backend, leases):
                self._set(pool, backend, "draining").leases = leases
            case e.BackendDrained(pool, backend, after_s, cut):
                self._set(pool, backend, "drained", f"drained in {seconds(after_s)}" + (f", {cut} cut" if cut else ""))
            case e.BackendTakenBack(pool, backend):
                self._set(pool, backend, "taken back")
            case e.BackendStopped(pool, backend, how, _, why):
                self._set(pool, backend, "stopped", f"stopped ({how})" + (f": {why}" if why else ""))

    def learn(self, status: dict[str, Any]) -> None:
        """The facts that no event tells: what is left in hand and for how long, what a starting backend waits for."""
        facts = {
            f"{backend['id']}@{backend['generation']}": backend
            for pool in status["pools"].values()
            for backend in pool["backends"]
        }
        for name, row in list(self._rows.items()):
            row.facts = facts.get(name, {})
            row.leases = row.facts.get("in_flight", 0)

    def title(self) -> str:
        """What is done, how long it has taken, and how many of the new backends of each pool are proved."""
        proved = Counter(row.pool for row in list(self._rows.values()) if row.state == "proved")
        counts = [f"{pool} {proved[pool]} of {size}" for pool, size in self._sizes.items() if size]
        return "  ".join([self._title, seconds(self._now() - self._began), *counts])

    def rows(self, room: int = 10_000) -> list[tuple[str, str]]:
        """At most `room` rows: where there are more, the finished backends become one."""
        rows = list(self._rows.items())  # rich's thread draws while ours feeds
        if len(rows) <= room:
            return [(name, self._text(row)) for name, row in rows]
        finished = Counter(row.state for _, row in rows if row.state in _FINISHED)
        folded = [("", ", ".join(f"{number} {state}" for state, number in finished.items()))] if finished else []
        busy = [(name, self._text(row)) for name, row in rows if row.state not in _FINISHED]
        if len(folded) + len(busy) > room:
            shown = room - len(folded) - 1
            busy[shown:] = [("", f"and {len(busy) - shown} more")]
        return folded + busy

    def _text(self, row: Row) -> str:
        why = f": {printable(str(row.facts['why']))}" if row.facts.get("why") else ""
        match row.state:
            case "starting":
                return f"starting{why}" if why else f"starting, {self._so_far(row)}"
            case "draining":
                left_s = row.facts.get("drain_left_s")
                at_most = f", {seconds(left_s)} more at most" if row.leases and left_s is not None else ""
                return f"draining, {row.leases} in hand, {self._so_far(row)}{at_most}"
            case "drained":
                return row.text + why
        return printable(row.text)

    def _so_far(self, row: Row) -> str:
        return seconds(self._now() - row.since)

    def _set(self, pool: str, backend: str, state: str, text: str = "") -> Row:
        row = self._rows[backend] = Row(pool, state, text or state, self._now())
        return row


class LiveBlock:
    """Draws a Progress four times a second, in rich's thread. A thread of its own reads `status` once a second."""

    def __init__(self, client: ControlClient, *, colored: bool, console: Console | None = None) -> None:
        self.progress = Progress()
        self._client = client
        self._over = threading.Event()
        self._console = console or Console(no_color=not colored, highlight=False)
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=4)

    def start(self) -> None:
        self._live.start()
        threading.Thread(target=self._keep_asking, daemon=True).start()

    def show(self, values: dict[str, Any], event: e.Event | None) -> None:
        if event is not None and not isinstance(event, e.ReloadDone):
            self.progress.feed(event)

    def end(self) -> None:
        self._over.set()
        self._live.stop()

    def _draw(self) -> Table:
        block = Table.grid(padding=(0, 2))
        block.add_row(_line(self.progress.title()))
        notes = self.progress.notes.copy()
        for note, style in notes:
            block.add_row(_line(note, style))
        rows = Table.grid(padding=(0, 2))
        # The last line of the terminal stays free: there the cursor stands.
        for backend, text in self.progress.rows(max(LEAST_ROWS, self._console.size.height - 2 - len(notes))):
            rows.add_row(_line(f"  {backend}"), _line(text))
        block.add_row(rows)
        return block

    def _keep_asking(self) -> None:
        while not self._over.wait(ASK_EVERY_S):
            try:
                self.progress.learn(self._client.get("/v1/status"))
            except (Fail, KeyError, TypeError, AttributeError):
                continue  # the stream of events tells how the reload ends


def _line(text: str, style: str = "") -> Text:
    """One line, cut at the terminal's edge: the block is as tall as it has lines."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
