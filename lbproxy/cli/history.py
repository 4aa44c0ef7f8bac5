"""`lbproxy history`: what was changed, when, by whom, and what became of it."""

from typing import Any
from urllib.parse import urlencode

import click

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Options, with_options
from lbproxy.cli.status_text import aligned
from lbproxy.telemetry.text import printable, seconds
from lbproxy.telemetry.words import compact

_COLUMNS = ("STARTED", "VERB", "POOL", "GENERATION", "RESULT", "TOOK", "REQUESTS", "FAILED", "CUT", "BY", "WHY")


@click.command(short_help="What was changed, and what became of it.")
@click.argument("pool", required=False)
@click.option("-n", "--lines", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_options
def history(options: Options, pool: str | None, lines: int, as_json: bool) -> int:
    """The last changes of all pools, or of one: reloads, rollbacks, scales, restarts, drains, and
    backends that lbproxy replaced for their memory. The oldest comes first.

    The last 1,000 are kept, also over a restart of lbproxy.
    """
    query = {"n": lines, **({"pool": pool} if pool is not None else {})}
    records = ControlClient.of(options).get(f"/v1/history?{urlencode(query)}")["records"]
    if as_json:
        for record in records:
            print(compact(record))
    elif records:
        for line in aligned([_COLUMNS, *map(_row, records)]):
            print(line)
    elif not options.quiet:
        print("nothing was changed yet")
    return 0


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    asked = record.get("asked_by") or {}
    by = str(asked.get("how", "-")) + (f" uid {asked['uid']}" if "uid" in asked else "")
    return tuple(
        printable(str(cell))
        for cell in (
            record["started_at"],
            record["verb"],
            record.get("backend") or record["pool"],
            _generations(record),
            record["result"],
            seconds(record["duration_s"]),
            record["requests"],
            record["failed"],
            record["cut"],
            by,
            record.get("why") or "",
        )
    )


def _generations(record: dict[str, Any]) -> str:
    """`6 -> 7`, `6 -> 8 (as 5)`, `7`."""
    old, new = record["from_generation"], record["generation"]
    text = f"{new}" if old == new else f"{old} -> {new}"
    return text + (f" (as {record['same_as']})" if "same_as" in record else "")
