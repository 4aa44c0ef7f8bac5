"""`lbproxy status`: what runs, as a table or as JSON, and whether it is well.

Has to answer within 150 ms: standard library and click, nothing else.
"""

from typing import Any

import click

from lbproxy.cli.client import ControlClient
from lbproxy.cli.not_supported import not_supported
from lbproxy.cli.options import Fail, Options, with_options
from lbproxy.cli.status_text import is_degraded, status_lines, width_of_output, workers_missing
from lbproxy.telemetry.words import compact

DEGRADED = 4
USAGE = 2


@click.command(short_help="What runs, and whether it is well.")
@click.argument("pool", required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option("-w", "--watch", is_flag=True, help="(not supported yet)")
@with_options
def status(options: Options, pool: str | None, as_json: bool, watch: bool) -> int:
    """The state of every part. Exit code 0: all healthy, 3: not running, 4: degraded."""
    if watch:
        raise not_supported("status -w")
    answer = status_of(ControlClient.of(options), pool)
    if as_json:
        print(compact(answer))
    elif not options.quiet:
        print("\n".join(status_lines(answer, options, width_of_output())))
    return exit_code(answer)


def status_of(client: ControlClient, pool: str | None) -> dict[str, Any]:
    """The status document, of one pool if it is named."""
    answer: dict[str, Any] = client.get("/v1/status")
    if pool is not None:
        if pool not in answer["pools"]:
            raise Fail(USAGE, f"lbproxy: no pool '{pool}' (there is: {', '.join(answer['pools'])})")
        answer["pools"] = {pool: answer["pools"][pool]}
    return answer


def exit_code(answer: dict[str, Any]) -> int:
    return DEGRADED if workers_missing(answer) or any(is_degraded(one) for one in answer["pools"].values()) else 0
