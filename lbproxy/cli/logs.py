"""`lbproxy logs`: the last lines of the backends, or of the access log."""

import math
import sys
from typing import Any
from urllib.parse import urlencode

import click

from lbproxy.cli.client import ConnectionBroke, ControlClient
from lbproxy.cli.options import Fail, Options, with_options
from lbproxy.cli.reload import Duration
from lbproxy.telemetry.words import compact


@click.command(short_help="The output of backends.")
@click.argument("source", required=False, metavar="[POOL|BACKEND|access]")
@click.option("-f", "--follow", is_flag=True, help="Go on as more comes.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=100, show_default=True, help="At most so many.")
@click.option("--gen", type=click.IntRange(min=1), help="Only this generation.")
@click.option("--since", type=Duration(), metavar="DURATION", help='Not older than this ("10m").')
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_options
def logs(options: Options, source: str | None, follow: bool, lines: int, as_json: bool, **which: Any) -> int:
    """The last lines of a pool's backends, or of one of them (web.1, or web.1@6: its generation); `access` is the
    access log, wherever it goes.

    lbproxy logs web -f --since 10m
    """
    since = None if which["since"] is None else math.ceil(which["since"])
    asked = {"n": lines, "source": source, "gen": which["gen"], "since": since, "follow": 1 if follow else None}
    query = {name: value for name, value in asked.items() if value is not None}
    try:
        with ControlClient.of(options).stream("GET", f"/v1/logs?{urlencode(query)}") as stream:
            for values in stream:
                print(compact(values) if as_json else line_text(options, values), flush=follow)
    except ConnectionBroke as exc:
        raise Fail(1, f"lbproxy: the connection broke: {exc}") from None
    if follow:
        print("lbproxy: there are no more lines: it has stopped", file=sys.stderr)
    return 0


def line_text(options: Options, values: dict[str, Any]) -> str:
    """`2026-01-01T12:00:00.000Z web.3@7 | line`; the access log's lines stand for themselves."""
    from lbproxy.telemetry.text import printable

    line = printable(str(values.get("line", "")))
    backend = values.get("backend")
    if not backend:
        return line
    name = f"{backend}@{values['generation']}" if "@" not in backend and values.get("generation") else str(backend)
    return f"{options.colored(str(values.get('time', '')), 'dim')} {name} | {line}"
