"""The status document as lines of text, for a terminal of any width: columns without room are left out.

Knows the document (CONTRACT.md 3). Knows neither the control API nor the exit code of `status`.
"""

import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lbproxy.cli.options import Options, on_terminal
from lbproxy.cli.pool_notes import pool_notes
from lbproxy.cli.status_document import is_degraded, workers_missing
from lbproxy.telemetry.words import count

_COLORS = {"ready": "green", "unhealthy": "red", "failed": "red", "backoff": "red"}
_COLUMNS = ("BACKEND", "STATE", "PID", "ADDRESS", "UP", "RESTARTS", "IN FLIGHT", "REQUESTS")
_BRIEF = "kinds"  # the number in flight stays, its kinds go
_LEFT_OUT_FIRST = ("ADDRESS", "PID", "RESTARTS", "UP", _BRIEF, "REQUESTS", "IN FLIGHT")
_LEAVING = ("ready", "draining", "drained", "stopping")  # states that say nothing bad about a pool
_SOON_DAYS, _VERY_SOON_DAYS = 21, 7  # as the events warn
WIDEST = 100_000  # where no terminal limits a line


def width_of_output() -> int:
    """The terminal's width. Without a terminal nothing limits a line, whatever COLUMNS says."""
    return shutil.get_terminal_size().columns if on_terminal() else WIDEST


def status_lines(answer: dict[str, Any], options: Options, width: int = WIDEST) -> list[str]:
    config = answer.get("config") or {}
    parts = [answer["name"], f"pid {answer['pid']}", f"up {up(answer['uptime_s'])}"]
    if config.get("path"):
        parts.append(f"{config['path']} as of {config['loaded_at']}")
    lines = flowing(parts, width)
    for listener in answer["listeners"]:
        to = f" -> {listener['pool']}" if listener.get("pool") else ""
        names = dict.fromkeys((str(listener["name"]), str(listener["address"])))  # one without a name has its address
        lines += flowing([f"listener {'  '.join(names)}", f"{listener['mode']}{to}"], width)
        for certificate in listener.get("certificates", []):
            lines += [f"  {line}" for line in _certificate_lines(certificate, options, width - 2)]
        lines += [f"  {line}" for line in _order_lines(listener.get("acme"), options, width - 2)]
    for route in answer.get("routes", []):
        lines += flowing([f"route {route.get('host') or ''}{route['path']} -> {route['pool']}"], width)
    for worker in answer["workers"]:
        state = f"old, {worker['state']}" if worker.get("is_old") else worker["state"]
        facts = [f"pid {worker['pid']}", state, count(worker["connections"], "connection")]
        lines += flowing([f"worker {worker['id']}", *facts], width)
    if missing := workers_missing(answer):
        lines.append(options.colored(f"degraded: {missing} of {answer['workers_wanted']} workers do not serve", "red"))
    for name, pool in answer["pools"].items():
        lines += ["", *_pool_lines(name, pool, options, width)]
    return lines


def _certificate_lines(certificate: dict[str, Any], options: Options, width: int) -> list[str]:
    from lbproxy.telemetry.text import few, printable

    left = certificate["days_left"]
    until = f"until {certificate['not_after'][:10]}"
    said = "expired" if left < 0 else f"{count(left, 'day')} left"
    lines = flowing([f"certificate {printable(few(certificate['names']))}", until, said], width)
    if left < _SOON_DAYS:
        color = "red" if left < _VERY_SOON_DAYS else "yellow"
        lines = [line.replace(said, options.colored(said, color)) for line in lines]
    return lines


def _order_lines(order: dict[str, Any] | None, options: Options, width: int) -> list[str]:
    """How the order of a certificate stands, where there is one."""
    from lbproxy.telemetry.text import few, printable

    if order is None:
        return []
    next_try = str(order["next_try"])[:16].replace("T", " ") if "next_try" in order else ""
    parts = [f"acme {printable(few(order['domains']))}"]
    if order["state"] == "waiting":
        parts.append(f"next {next_try}Z")
    else:
        parts += [order["state"], *([f"next try {next_try}Z"] if next_try else [])]
    lines = flowing(parts, width)
    if "why" in order:
        lines.append(options.colored(printable(f"  {order['why']}"), "red"))
    return lines


def _pool_lines(name: str, pool: dict[str, Any], options: Options, width: int) -> list[str]:
    ready = f"{pool['ready']}/{pool['size']} ready"
    parts = [f"pool {name}", f"generation {pool['generation']}", ready]
    parts += ["reloading"] if pool.get("reloading") else []
    if trouble := what_is_wrong(pool):
        parts.append(trouble)
    parts.append(count(pool["requests_total"], "request"))
    color = "red" if is_degraded(pool) else "green"
    lines = [line.replace(ready, options.colored(ready, color), 1) for line in flowing(parts, width)]
    lines += [f"  {line}" for line in _directory_lines(pool, width - 2)]
    for note in pool_notes(name, pool):
        lines += [f"  {options.colored(line, 'yellow')}" for line in textwrap.wrap(note, max(20, width - 2))]
    cells = {name: [name] for name in _COLUMNS}
    for backend in pool["backends"]:
        for column, cell in zip(_COLUMNS, _row(backend), strict=True):
            cells[column].append(cell)
    head, *rows = _narrowed(cells, width - 2)
    lines.append(f"  {head}")
    for backend, row in zip(pool["backends"], rows, strict=True):
        state = str(backend["state"])
        lines.append("  " + row.replace(state, options.colored(state, _COLORS.get(state, "yellow")), 1))
        lines += [f"    {line}" for line in _why_lines(backend, width - 4)]
    return lines


def what_is_wrong(pool: dict[str, Any]) -> str:
    """`degraded: 1 backoff` while some serve, `nothing serves: 3 starting` when none does; empty if all is well."""
    states = Counter(str(backend["state"]) for backend in pool["backends"])
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()) if state not in _LEAVING)
    because = f": {counts}" if counts else ""
    if not pool["ready"] and not states["unhealthy"]:  # if none is ready, the unhealthy ones stay in the table
        return f"nothing serves{because}"
    if pool.get("reloading") or not is_degraded(pool):
        return ""
    return f"degraded{because}"


def _directory_lines(pool: dict[str, Any], width: int) -> list[str]:
    """The release directory; of each generation where they differ."""
    by_generation = {one["generation"]: one["directory"] for one in pool["backends"] if one.get("directory")}
    if len(set(by_generation.values())) == 1:
        return [_end_of(f"directory {next(iter(by_generation.values()))}", width)]
    return [_end_of(f"generation {number} in {path}", width) for number, path in sorted(by_generation.items())]


def _end_of(text: str, width: int) -> str:
    """The first word and the end of the line: the end of a path is what tells releases apart."""
    if len(text) <= width:
        return text
    first, _, rest = text.partition("/")
    return f"{first}…{rest[-max(1, width - len(first) - 1) :]}"


def _why_lines(backend: dict[str, Any], width: int) -> list[str]:
    if not backend.get("why"):
        return []
    from lbproxy.telemetry.text import printable

    return textwrap.wrap(printable(str(backend["why"])), max(20, width))


def _row(backend: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{backend['id']}@{backend['generation']}",
        str(backend["state"]),
        str(backend.get("pid") or "-"),
        _address(backend),
        up(backend["uptime_s"]) if backend.get("uptime_s") is not None else "-",
        str(backend["restarts"]),
        _in_flight(backend),
        str(backend["requests_total"]),
    )


def _address(backend: dict[str, Any]) -> str:
    """The address, behind it the name in the file that it was found for: `10.0.0.7:443 (app.internal)`."""
    address, target = str(backend.get("address") or "-"), backend.get("target")
    return f"{address} ({str(target).rpartition('://')[2].rpartition(':')[0]})" if target else address


def _in_flight(backend: dict[str, Any]) -> str:
    """`3`, and which kinds when they are not all requests; for a draining backend, how long that may still take."""
    kinds = {kind: number for kind, number in (backend.get("leases") or {}).items() if number}
    text = str(backend["in_flight"])
    if not set(kinds) <= {"request"}:
        text += f" ({', '.join(f'{number} {kind}' for kind, number in kinds.items())})"
    if kinds and backend.get("drain_left_s") is not None:
        text += f", {up(backend['drain_left_s'])} at most"
    return text


def _narrowed(cells: dict[str, list[str]], width: int) -> list[str]:
    """The lines of a table, without the columns that `width` has no room for."""
    left_out = iter(_LEFT_OUT_FIRST)
    while True:
        lines = aligned(list(zip(*cells.values(), strict=True)))
        if max(map(len, lines)) <= width or (column := next(left_out, None)) is None:
            return lines
        if column == _BRIEF:
            cells["IN FLIGHT"][1:] = [cell.partition(" (")[0].partition(",")[0] for cell in cells["IN FLIGHT"][1:]]
        else:
            del cells[column]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns, two spaces apart, no spaces at the end."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def flowing(parts: Sequence[str], width: int) -> list[str]:
    """The parts, two spaces apart; one that finds no room begins the next line, four spaces in."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(f"    {part}")
    return lines


def up(duration_s: float) -> str:
    """9.1s, 4m12s, 3h05m, 2d04h."""
    if duration_s < 60:
        return f"{duration_s:.1f}s"
    minutes, seconds = divmod(int(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
