"""The screen of `lbproxy top`: a line for each pool, a row for each backend, sorted by any column.

Knows the status document and rich. Knows neither the terminal nor how a reload is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from lbproxy.cli.pool_notes import pool_notes
from lbproxy.cli.status_document import is_degraded, workers_missing
from lbproxy.cli.status_text import up, what_is_wrong
from lbproxy.telemetry.text import printable
from lbproxy.telemetry.words import count

UNKNOWN = "\u2013"  # a dash
KEYS = "q quit   ↑↓ select   ←→ sort   r reload {pool}   d {verb} {backend}"
_STYLES = {"ready": "green", "unhealthy": "red", "failed": "red", "backoff": "red"}

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """`value`: what the rows are sorted by, None where it is not known; `text`: how it is shown."""

    name: str
    value: Callable[[Facts], Any]
    text: Callable[[Any], str] = str
    is_number: bool = True


def _leases(kind: str) -> Column:
    return Column(kind.upper(), lambda backend: (backend.get("leases") or {}).get(kind, 0))


def drain_verb(backend: Facts) -> str:
    """The command for the key d."""
    return "undrain" if backend["state"] == "drained" else "drain"


def rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def mebibytes(value: float) -> str:
    return f"{value / 2**20:.0f}M" if value < 2**30 else f"{value / 2**30:.1f}G"


def milliseconds(value: float) -> str:
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


COLUMNS = (
    Column("BACKEND", lambda backend: backend["order"], is_number=False),
    Column("STATE", lambda backend: str(backend["state"]), is_number=False),
    Column("REQUESTS/S", lambda backend: backend.get("requests_per_s"), rate),
    Column("CPU", lambda backend: backend.get("cpu"), percent),
    Column("MEMORY", lambda backend: backend.get("resident_memory_bytes"), mebibytes),
    *map(_leases, ("request", "transfer", "stream", "websocket", "tcp")),
    Column("RESTARTS", lambda backend: backend["restarts"]),
    Column("UP", lambda backend: backend.get("uptime_s"), up),
    Column("REQUESTS", lambda backend: backend["requests_total"]),
)
_LEFT_OUT_FIRST = ("RESTARTS", "UP", "TRANSFER", "TCP", "REQUESTS", "STREAM", "WEBSOCKET", "REQUEST", "MEMORY", "CPU")


class TopView:
    def __init__(self) -> None:
        self.message = ""
        self.sort_by = 0  # index of the column
        self._answer: Facts = {}
        self._rows: list[Facts] = []
        self._selected = ""  # the name of a backend
        self._before: dict[str, tuple[float, int]] = {}  # of each backend: time and requests of the document before

    @property
    def selected(self) -> Facts | None:
        """The backend under the cursor: the first one until another is chosen."""
        rows = [row for row in self._rows if row["name"] == self._selected] or self._rows
        return rows[0] if rows else None

    def learn(self, answer: Facts) -> None:
        self._answer = answer
        rows = []
        for pool_number, (pool, facts) in enumerate(answer["pools"].items()):
            for backend_number, backend in enumerate(facts["backends"]):
                name = f"{backend['id']}@{backend['generation']}"
                row = {**backend, "name": name, "pool": pool, "order": (pool_number, backend_number)}
                row.setdefault("requests_per_s", self._rate(name, answer["uptime_s"], backend["requests_total"]))
                rows.append(row)
        self._before = {row["name"]: (answer["uptime_s"], row["requests_total"]) for row in rows}
        self._rows = rows
        self._sort()

    def move(self, by: int) -> None:
        """Select another row."""
        names = [row["name"] for row in self._rows]
        if names:
            at = names.index(self._selected) if self._selected in names else 0
            self._selected = names[min(max(at + by, 0), len(names) - 1)]

    def sort(self, by: int) -> None:
        """Sort by another column: numbers with the largest first."""
        self.sort_by = (self.sort_by + by) % len(COLUMNS)
        self._sort()

    def draw(self, width: int, height: int) -> Text:
        head = self._head()
        if len(head) > height // 2:
            head[height // 2 :] = [Text(f"… {len(head) - height // 2} more lines about pools")]
        rows = self._table(width)
        room = max(1, height - len(head) - 4)  # for rows: besides them a blank, their heads, the message and the keys
        names = [row["name"] for row in self._rows]
        selected = self.selected
        at = names.index(selected["name"]) if selected is not None else 0
        first = min(max(0, at - room + 1), max(0, len(rows) - 1 - room))
        lines = [*head, Text(), rows[0], *rows[1 + first : 1 + first + room]]
        lines += [Text()] * (height - 2 - len(lines))
        lines += [Text(printable(self.message), style="yellow"), Text(self._keys(), style="dim")]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Text("\n", no_wrap=True).join(lines[:height])

    def _keys(self) -> str:
        selected = self.selected
        if selected is None:
            return "q quit"
        return KEYS.format(pool=selected["pool"], backend=selected["id"], verb=drain_verb(selected))

    def _rate(self, name: str, uptime_s: float, requests: int) -> float | None:
        """Between this document and the one before."""
        before_s, before = self._before.get(name, (uptime_s, requests))
        return max(0, requests - before) / (uptime_s - before_s) if uptime_s > before_s else None

    def _sort(self) -> None:
        column = COLUMNS[self.sort_by]
        known = [row for row in self._rows if column.value(row) is not None]
        known.sort(key=lambda row: row["order"])
        known.sort(key=column.value, reverse=column.is_number)
        self._rows = known + [row for row in self._rows if column.value(row) is None]

    def _head(self) -> list[Text]:
        answer = self._answer
        connections = sum(worker["connections"] for worker in answer["workers"])
        facts = [answer["name"], f"up {up(answer['uptime_s'])}", count(len(answer["workers"]), "worker")]
        lines = [Text("  ".join([*facts, count(connections, "connection")]))]
        if missing := workers_missing(answer):
            lines[0].append(f"  {missing} of {answer['workers_wanted']} workers do not serve", style="red")
        for name, pool in answer["pools"].items():
            lines.append(_pool_line(name, pool))
            lines += [Text(f"  {printable(note)}", style="yellow") for note in pool_notes(name, pool)]
        return lines

    def _table(self, width: int) -> list[Text]:
        """The heads, then a line for each row."""
        columns = list(COLUMNS)
        left_out = iter(_LEFT_OUT_FIRST)
        while True:
            cells = [[column.name for column in columns]]
            cells += [[_cell(column, row) for column in columns] for row in self._rows]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            if sum(widths) + 2 * (len(widths) - 1) <= width or (name := next(left_out, None)) is None:
                break
            columns = [column for column in columns if column.name != name]
        lines = [
            Text("  ").join(
                Text(cell.rjust(size) if column.is_number else cell.ljust(size))
                for column, cell, size in zip(columns, row, widths, strict=True)
            )
            for row in cells
        ]
        lines[0].stylize("bold")
        lines[0].highlight_words([COLUMNS[self.sort_by].name], "reverse")
        selected = self.selected
        for row, line in zip(self._rows, lines[1:], strict=True):
            line.highlight_words([str(row["state"])], _STYLES.get(str(row["state"]), "yellow"))
            if selected is not None and row["name"] == selected["name"]:
                line.stylize("reverse")
        return lines


def _cell(column: Column, row: Facts) -> str:
    if column.name == "BACKEND":
        return str(row["name"])
    value = column.value(row)
    return UNKNOWN if value is None else column.text(value)


def _pool_line(name: str, pool: Facts) -> Text:
    line = Text(f"{name}  generation {pool['generation']}  ")
    line.append(f"{pool['ready']}/{pool['size']} ready", style="red" if is_degraded(pool) else "green")
    measured = (
        ("", pool.get("requests_per_s"), lambda value: f"{rate(value)} requests/s"),
        ("p50 ", pool.get("p50_s"), milliseconds),
        ("p99 ", pool.get("p99_s"), milliseconds),
        ("5xx ", pool.get("errors_per_s"), lambda value: f"{rate(value)}/s"),
    )
    for label, value, text in measured:
        missing = f"{UNKNOWN} requests/s" if not label else UNKNOWN
        line.append(f"  {label}{missing if value is None else text(value)}")
    if wrong := what_is_wrong(pool):
        line.append(f"  {wrong}", style="red")
    return line
