"""`lbproxy status`: what runs, as a table or as JSON, and whether it is well.

Has to answer within 150 ms: standard library and click, nothing else.
"""

import json
from collections.abc import Sequence
from typing import Any

import click

from lbproxy.cli.client import ControlClient
from lbproxy.cli.not_supported import not_supported
from lbproxy.cli.options import Fail, Options, with_options
from lbproxy.cli.pool_notes import pool_notes
from lbproxy.telemetry.text import printable

DEGRADED = 4
USAGE = 2
_COLORS = {"ready": "green", "unhealthy": "red", "failed": "red", "backoff": "red"}
_COLUMNS = ("BACKEND", "STATE", "PID", "ADDRESS", "UP", "RESTARTS", "IN FLIGHT", "REQUESTS")


@click.command(short_help="What runs, and whether it is well.")
@click.argument("pool", required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option("-w", "--watch", is_flag=True, help="(not supported yet)")
@with_options
def status(options: Options, pool: str | None, as_json: bool, watch: bool) -> int:
    """The state of every part. Exit code 0: all healthy, 3: not running, 4: degraded."""
    if watch:
        raise not_supported("status -w")
    answer = ControlClient.of(options).get("/v1/status")
    if pool is not None:
        if pool not in answer["pools"]:
            raise Fail(USAGE, f"lbproxy: no pool '{pool}' (there is: {', '.join(answer['pools'])})")
        answer["pools"] = {pool: answer["pools"][pool]}
    if as_json:
        print(json.dumps(answer))
    elif not options.quiet:
        print("\n".join(_lines(answer, options)))
    return DEGRADED if workers_missing(answer) or any(is_degraded(one) for one in answer["pools"].values()) else 0


def workers_missing(answer: dict[str, Any]) -> int:
    """How many of the wanted workers do not serve."""
    serving = sum(worker["state"] == "serving" for worker in answer["workers"])
    missing: int = max(0, answer.get("workers_wanted", 0) - serving)
    return missing


def is_degraded(pool: dict[str, Any]) -> bool:
    """Fewer than all serve as they should. More than all is a reload."""
    return bool(pool["ready"] < pool["size"] - pool.get("drained", 0))


def _lines(answer: dict[str, Any], options: Options) -> list[str]:
    config = answer.get("config") or {}
    file = f"  {config['path']} as of {config['loaded_at']}" if config.get("path") else ""
    lines = [f"{answer['name']}  pid {answer['pid']}  up {up(answer['uptime_s'])}{file}"]
    for listener in answer["listeners"]:
        to = f" -> {listener['pool']}" if listener.get("pool") else ""
        lines.append(f"listener {listener['name']}  {listener['address']}  {listener['mode']}{to}")
    lines += [
        f"worker {worker['id']}  pid {worker['pid']}  {worker['state']}  {worker['connections']} connections"
        for worker in answer["workers"]
    ]
    if missing := workers_missing(answer):
        lines.append(options.colored(f"degraded: {missing} of {answer['workers_wanted']} workers do not serve", "red"))
    for name, pool in answer["pools"].items():
        lines += ["", *_pool_lines(name, pool, options)]
    return lines


def _pool_lines(name: str, pool: dict[str, Any], options: Options) -> list[str]:
    ready = options.colored(f"{pool['ready']}/{pool['size']} ready", "red" if is_degraded(pool) else "green")
    what = "  reloading" if pool.get("reloading") else "  degraded" if is_degraded(pool) else ""
    title = f"pool {name}  generation {pool['generation']}  {ready}{what}  {pool['requests_total']} requests"
    rows = [_COLUMNS, *(_row(backend) for backend in pool["backends"])]
    head, *body = aligned(rows)
    notes = [options.colored(f"  {printable(note)}", "yellow") for note in pool_notes(name, pool)]
    lines = [title, *notes, f"  {head}"]
    for row, text in zip(rows[1:], body, strict=True):
        state = row[1]
        lines.append("  " + text.replace(state, options.colored(state, _COLORS.get(state, "yellow")), 1))
    return lines


def _row(backend: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{backend['id']}@{backend['generation']}",
        str(backend["state"]),
        str(backend.get("pid") or "-"),
        str(backend.get("address") or "-"),
        up(backend["uptime_s"]) if backend.get("uptime_s") is not None else "-",
        str(backend["restarts"]),
        _in_flight(backend),
        str(backend["requests_total"]),
    )


def _in_flight(backend: dict[str, Any]) -> str:
    """`3`, and which kinds when they are not all requests; for a draining backend, how long that may still take."""
    kinds = {kind: number for kind, number in (backend.get("leases") or {}).items() if number}
    text = str(backend["in_flight"])
    if not set(kinds) <= {"request"}:
        text += f" ({', '.join(f'{number} {kind}' for kind, number in kinds.items())})"
    if kinds and backend.get("drain_left_s") is not None:
        text += f", {up(backend['drain_left_s'])} at most"
    return text


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns, two spaces apart, no spaces at the end."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


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
