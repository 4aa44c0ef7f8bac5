"""The page of [admin]: one document of HTML, which works without JavaScript.

Made of plain values (the status document, events as JSON, samples). Every text from outside is escaped in one place, so
no name, path or event can become markup. page.js asks for this document again and again and replaces the parts that
differ: there is no second place that draws.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbproxy.control.pool_series import SAMPLES, Sample
from lbproxy.control.sparkline import sparkline

Values = Mapping[str, Any]
HTML = "text/html; charset=utf-8"
ASSETS = {
    "/page.css": (Path(__file__).with_name("page.css").read_bytes(), "text/css; charset=utf-8"),
    "/page.js": (Path(__file__).with_name("page.js").read_bytes(), "text/javascript; charset=utf-8"),
}
LAST_EVENTS = 40
ABSENT = "&ndash;"
_GOOD, _BAD = ("ready",), ("unhealthy", "backoff", "failed")
_MARKS = {"good": "●", "bad": "▲", "busy": "◐"}
_STEPS = {
    "backend.starting": "starting",
    "backend.ready": "ready",
    "backend.proved": "proved",
    "backend.not_ready": "not ready",
    "backend.exited": "exited",
    "backend.draining": "draining",
    "backend.drained": "drained",
    "backend.taken_back": "taken back",
    "backend.stopped": "stopped",
}


@dataclass(frozen=True, slots=True)
class Page:
    document: Values
    events: Sequence[Values]  # the last ones, the newest last
    reload: Sequence[Values]  # all events of the last reload, the oldest first
    series: Mapping[str, Sequence[Sample]]
    is_live: bool = True  # page.js may read the events

    def render(self) -> bytes:
        name = text(self.document["name"])
        parts = (self._summary(), self._reload(), self._pools(), self._backends(), self._listeners(), self._events())
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name} - lbproxy</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<script src="/page.js" defer></script>
<noscript><meta http-equiv="refresh" content="5"></noscript>
</head>
<body data-events="{"yes" if self.is_live else "no"}">
<header><h1>{name}</h1><p id="live" role="status"></p></header>
<main>
{"".join(parts)}</main>
</body>
</html>
""".encode(errors="backslashreplace")

    def _summary(self) -> str:
        document = self.document
        state = word("bad", "degraded") if document["degraded"] else word("good", "all ready")
        config = document["config"]
        file = f" · {text(config['path'])} as of {text(config['loaded_at'])}" if config.get("path") else ""
        serving = sum(worker["state"] == "serving" for worker in document["workers"])
        workers = f"{serving} of {document['workers_wanted']} workers"
        up = _up(document["uptime_s"])
        return _section("summary", "", f"<p>{state} · {workers} · pid {document['pid']} · up {up}{file}</p>")

    # The reload

    def _reload(self) -> str:
        if not self.reload:
            return _section("reload", "", "")
        started = self.reload[0]
        verb = text(started.get("verb", "reload"))
        lines = [event for event in self.reload if event["event"].startswith("reload.") and "text" in event]
        told = "".join(f"<p>{_event_word(event)} {text(event['text'])}</p>" for event in lines)
        if self.reload[-1]["event"] == "reload.finished":
            return _section("reload", f"Last {verb}", told)
        rows = "".join(self._step(name, steps) for name, steps in _steps_by_backend(self.reload).items())
        progress = self._progress(sum(started.get("sizes", ())))
        return _section(
            "reload", f"{verb.capitalize()} running", f'{told}{progress}<table class="steps">{rows}</table>'
        )

    def _progress(self, wanted: int) -> str:
        """How many backends are proved, of all that the change makes; nothing while that is not known."""
        proved = len({event["backend"] for event in self.reload if event["event"] == "backend.proved"})
        bar = f'<progress max="{wanted}" value="{proved}"></progress>'
        return f"<p>{proved} of {wanted} proved {bar}</p>" if wanted else ""

    def _step(self, name: str, steps: Sequence[str]) -> str:
        *done, now = steps
        kind = (
            "bad" if now in ("exited", "not ready") else "good" if now in ("proved", "drained", "stopped") else "busy"
        )
        path = "".join(f"{step} → " for step in done)
        left = self._left(name) if now == "draining" else ""
        return f'<tr><th>{text(name)}</th><td><span class="done">{path}</span>{word(kind, now)}{left}</td></tr>'

    def _left(self, name: str) -> str:
        """What a draining backend still has in hand."""
        for pool in self.document["pools"].values():
            for backend in pool["backends"]:
                if f"{backend['id']}@{backend['generation']}" == name:
                    return f": {_in_flight(backend)} in hand{_drain_left(backend)}"
        return ""

    # Pools and backends

    def _pools(self) -> str:
        pools = self.document["pools"].items()
        return _section("pools", "Pools", "".join(self._pool(name, pool) for name, pool in pools))

    def _pool(self, name: str, pool: Values) -> str:
        samples = self.series.get(name, ())
        newest = samples[-1] if samples else None
        ready = word("good" if pool["ready"] >= pool["size"] else "bad", f"{pool['ready']}/{pool['size']} ready")
        websockets = sum(backend["leases"].get("websocket", 0) for backend in pool["backends"])
        rate = pool.get("requests_per_s", newest.requests_per_s if newest else None)
        errors = newest.errors_per_s if newest else None
        doing = " ".join((ready, *_what_goes_on(pool)))
        stats = (
            _stat("requests/s", _number(rate), [sample.requests_per_s for sample in samples]),
            _stat("p50", _milliseconds(pool.get("p50_s"))),
            _stat("p99", _milliseconds(pool.get("p99_s")), [sample.p99_s for sample in samples]),
            _stat("5xx/s", _number(errors), [sample.errors_per_s for sample in samples], "bad" if errors else ""),
            _stat("WebSockets", str(websockets)),
        )
        title = f"<h3>{text(name)} <small>@{pool['generation']}</small></h3>"
        return f'<div class="pool">{title}<p>{doing}</p>{"".join(stats)}</div>'

    def _backends(self) -> str:
        head = (
            "<tr><th>backend</th><th>state</th><th>up</th><th>in flight</th>"
            '<th class="wide">requests</th><th class="wide">restarts</th><th class="wide">pid</th>'
            '<th class="wide">address</th></tr>'
        )
        rows = [_backend(backend) for pool in self.document["pools"].values() for backend in pool["backends"]]
        return _section("backends", "Backends", f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>")

    def _listeners(self) -> str:
        rows = "".join(
            f"<tr><th>{text(one['name'])}</th><td>{text(one['address'])}</td><td>{text(one['mode'])}</td>"
            f"<td>{text(one['pool'] or 'by route')}</td><td>{one['connections']}</td></tr>"
            for one in self.document["listeners"]
        )
        head = "<tr><th>listener</th><th>address</th><th>mode</th><th>pool</th><th>connections</th></tr>"
        return _section("listeners", "Listeners", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>")

    def _events(self) -> str:
        rows = "".join(
            f"<li><time>{text(event['time'][11:19])}</time> {_event_word(event)} {text(event.get('text', ''))}</li>"
            for event in reversed(self.events)
        )
        return _section("events", "Last events", f"<ol>{rows}</ol>")


def _what_goes_on(pool: Values) -> list[str]:
    words = []
    if pool.get("reloading"):
        step = (pool.get("reload") or {}).get("step", "reloading")
        words.append(word("bad" if step in ("paused", "rolling back") else "busy", step))
    if pool.get("paused"):
        words.append(word("bad", "maintenance" if pool["paused"].get("maintenance") else "paused"))
    return words


def text(value: object) -> str:
    """A text from outside as HTML. Control characters have no place in it (HTML standard, 13.2.2)."""
    plain = str(value)
    if not plain.isprintable():
        plain = "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in plain)
    return html.escape(plain)


def word(kind: str, what: str) -> str:
    """A state by colour, mark and word. `kind`: good | bad | busy."""
    return f'<span class="{kind}"><i aria-hidden="true">{_MARKS[kind]}</i> {text(what)}</span>'


def _section(name: str, title: str, body: str) -> str:
    heading = f"<h2>{title}</h2>" if title else ""
    return f'<section id="{name}">{heading}{body}</section>\n'


def _steps_by_backend(events: Sequence[Values]) -> dict[str, list[str]]:
    steps: dict[str, list[str]] = {}
    for event in events:
        if event["event"] in _STEPS:
            steps.setdefault(event["backend"], []).append(_STEPS[event["event"]])
    return steps


def _event_word(event: Values) -> str:
    level = event.get("level", "info")
    kind = {"warning": "busy", "error": "bad"}.get(level)
    return word(kind, level) if kind is not None else f'<span class="quiet">{text(level)}</span>'


def _backend(backend: Values) -> str:
    state = backend["state"]
    kind = "good" if state in _GOOD else "bad" if state in _BAD else "busy"
    why = f"<br><small>{text(backend['why'])}</small>" if backend.get("why") else ""
    cells = (
        f"<th>{text(backend['id'])}@{backend['generation']}</th>",
        f"<td>{word(kind, state)}{_drain_left(backend)}{why}</td>",
        f"<td>{ABSENT if backend['uptime_s'] is None else _up(backend['uptime_s'])}</td>",
        f"<td>{_in_flight(backend)}</td>",
        *(_wide(backend[key]) for key in ("requests_total", "restarts", "pid", "address")),
    )
    return f"<tr>{''.join(cells)}</tr>"


def _wide(value: object) -> str:
    """A cell that has no place on a narrow screen."""
    return f'<td class="wide">{ABSENT if value is None else text(value)}</td>'


def _in_flight(backend: Values) -> str:
    kinds = {kind: count for kind, count in backend["leases"].items() if count}
    more = "" if set(kinds) <= {"request"} else f" ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})"
    return text(f"{backend['in_flight']}{more}")


def _drain_left(backend: Values) -> str:
    left_s = backend.get("drain_left_s")
    return f", {_up(left_s)} at most" if left_s is not None and backend["in_flight"] else ""


def _stat(label: str, value: str, values: Sequence[float | None] = (), kind: str = "") -> str:
    known = [value for value in values if value is not None]
    spark = sparkline(values, f"{label} in the last 5 minutes", SAMPLES) if known else ""
    return f'<div class="stat {kind}"><span>{label}</span> <b>{value}</b>{spark}</div>'


def _number(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _milliseconds(value_s: float | None) -> str:
    if value_s is None:
        return ABSENT
    return f"{value_s * 1000:.3g} ms" if value_s < 1 else f"{value_s:.2f} s"


def _up(duration_s: float) -> str:
    """9s, 4m12s, 3h05m, 2d04h."""
    minutes, seconds = divmod(int(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
