"""`lbproxy why`: why one exchange failed."""

from typing import Any
from urllib.parse import urlencode

import click

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Options, with_options
from lbproxy.telemetry.words import compact


@click.command(short_help="Why one exchange failed.")
@click.argument("request_id", metavar="REQUEST-ID")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@with_options
def why(options: Options, request_id: str, as_json: bool) -> int:
    """Why a request was answered with 5xx by lbproxy, or its answer broke off: one of the last 10,000 such failures.

    The id stands in the answer's X-Request-ID, on lbproxy's error pages, in the access log (json) and in the log.
    """
    answer = ControlClient.of(options).get(f"/v1/why?{urlencode({'request': request_id})}")
    if as_json:
        print(compact(answer))
        return 0
    from lbproxy.telemetry.text import printable

    for failure in answer["failures"]:
        print("\n".join(map(printable, _lines(failure))))
    return 0


def _lines(failure: dict[str, Any]) -> list[str]:
    """When and what; how it ended; then the attempts before that."""
    where = failure["backend"] or (f"pool {failure['pool']}, no backend" if failure["pool"] else "no pool")
    lines = [
        f"{failure['time']}  {failure['request']}  from {failure['client'] or 'a unix peer'}",
        f"  {failure['status'] or 'no answer'} after {failure['duration_s']:.3f}s  {where}  {failure['error']}",
        f"  {failure['reason']}",
    ]
    for number, one in enumerate(failure["tries"], 1):
        lines.append(f"  try {number}: {one['backend']}, given up after {one['after_s']:.3f}s: {one['why']}")
    return lines
