"""`lbproxy connections`, `lbproxy close`, and why a drain is not over: what is open, and what its end waits for."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Fail, Options, with_options
from lbproxy.cli.status_text import aligned, up
from lbproxy.telemetry.words import compact

_COLUMNS = ("CONNECTION", "CLIENT", "KIND", "BACKEND", "AGE", "BYTES/10s", "GRACE", "LEFT")
_WORDS = {
    "closed": "closed {id}",
    "goodbye": "said goodbye to {id}: it ends with its message or event in hand",
    "cut": "cut {id}",
}
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


@click.command(short_help="The open client connections.")
@click.argument("source", required=False, metavar="[POOL|BACKEND]")
@click.option("--json", "as_json", is_flag=True, help="All as one JSON object.")
@with_options
def connections(options: Options, source: str | None, as_json: bool) -> int:
    """All open client connections, or those that hold a pool's backends, or one backend (web.3, web.3@7).

    \b
    AGE     how long it has held its backend; without one, how long it has been idle
    GRACE   what a drain of its backend allows it
    LEFT    what is left of that, where the backend drains
    """
    client = ControlClient.of(options)
    if as_json:
        print(compact({"connections": [row for page in _pages(client, source) for row in page["connections"]]}))
        return 0
    lines = 0
    for page in _pages(client, source):
        _print_page(page["connections"])
        lines += len(page["connections"])
    if not lines and not options.quiet:
        print("no connection is open" if source is None else f"no connection holds {source}")
    return 0


@click.command(short_help="End one connection, as a drain would.")
@click.argument("connection")
@with_options
def close(options: Options, connection: str) -> int:
    """End one connection as a drain of its backend would: a WebSocket is told 1001, an event stream ends behind an
    event, a request is cut; an idle connection is closed.
    """
    answer = ControlClient.of(options).post("/v1/close", {"connection": connection})
    if not options.quiet:
        print(_WORDS.get(answer["how"], answer["how"] + " {id}").format(id=answer["connection"]))
    return 0


def why(client: ControlClient, backend: str) -> int:
    """Print what the drain of a backend waits for. Raises Fail if it does not drain."""
    states: dict[str, str] = {}
    lines = 0
    for page in _pages(client, backend):
        states |= page["states"]
        draining = [id for id, state in states.items() if state == "draining"]
        if not draining:
            what = f"it is {', '.join(states.values())}" if states else "it is a pool: name one of its backends"
            raise Fail(1, f"lbproxy: {backend} does not drain: {what}")
        held = [row for row in page["connections"] if row["backend"] in draining]
        _print_page(held)
        lines += len(held)
    if not lines:
        print(f"{backend} drains, and nothing holds it any more")
    return 0


def _pages(client: ControlClient, source: str | None) -> Iterator[dict[str, Any]]:
    query = {"source": source} if source else {}
    while True:
        page: dict[str, Any] = client.get(f"/v1/connections?{urlencode(query)}")
        for worker in page["silent_workers"]:
            click.echo(f"lbproxy: worker {worker} does not answer: its connections are missing", err=True)
        yield page
        if page["next"] is None:
            return
        query["after"] = page["next"]


def _print_page(rows: list[dict[str, Any]]) -> None:
    if rows:
        print("\n".join(aligned([_COLUMNS, *map(_cells, rows)])))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    grace = f"{row['rule']} {up(row['grace_s'])}" if row["rule"] else "-"
    return (
        row["id"],
        row["client"],
        row["kind"],
        row["backend"] or "-",
        up(row["age_s"]),
        size_text(row["bytes_10s"]),
        grace,
        up(row["left_s"]) if row["left_s"] is not None else "-",
    )


def size_text(number: int | None) -> str:
    """1.5MiB; "-" where it is not known."""
    if number is None:
        return "-"
    size, unit = float(number), 0
    while size >= 1024 and unit < len(_SIZES) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f}{_SIZES[unit]}" if unit == 0 else f"{size:.1f}{_SIZES[unit]}"
