"""`lbproxy events`: what happened lately, and what happens."""

from typing import Any
from urllib.parse import urlencode

import click

from lbproxy.cli.client import ConnectionBroke, ControlClient
from lbproxy.cli.options import Fail, Options, with_options
from lbproxy.cli.reload import Duration
from lbproxy.telemetry.text import event_from_json, printable, text_lines
from lbproxy.telemetry.words import compact

RECENT = 100
_LABELS = {"info": "info ", "warning": "warn "}


@click.command(short_help="What happened lately, and what happens.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more comes.")
@click.option("--since", type=Duration(), metavar="DURATION", help='All of the last so long ("10m"), as far as kept.')
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_options
def events(options: Options, follow: bool, since: float | None, as_json: bool) -> int:
    """The last 100 events, or all of a time; lbproxy keeps 10,000. The output of backends is in `lbproxy logs`.

    lbproxy events -f --since 10m
    """
    query: dict[str, str | int | float] = {"format": "lines", "follow": int(follow)}
    query |= {"n": RECENT} if since is None else {"since": since}
    try:
        with ControlClient.of(options).stream("GET", f"/v1/events?{urlencode(query)}") as stream:
            for values in stream:
                print(compact(values) if as_json else "\n".join(lines_of(values)), flush=follow)
    except ConnectionBroke as exc:
        raise Fail(1, f"lbproxy: the connection broke: {exc}") from None
    return 0


def lines_of(values: dict[str, Any]) -> list[str]:
    """As in the log of `serve`; an event that this version does not know, as that of control describes it."""
    event = event_from_json(values)
    if event is not None:
        return text_lines(event, str(values.get("time", "")))
    level, text = str(values.get("level", "info")), str(values.get("text") or values.get("event", ""))
    return [printable(f"{values.get('time', '')} {_LABELS.get(level, level)} {text}")]
