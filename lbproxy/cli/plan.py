"""`lbproxy plan`: what a reload would do. Control says it, and changes nothing."""

import click

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Options, with_options
from lbproxy.cli.plan_text import plan_lines
from lbproxy.cli.status_text import width_of_output
from lbproxy.telemetry.words import compact


@click.command(short_help="What a reload would do; changes nothing.")
@click.argument("pools", nargs=-1, metavar="[POOL...]")
@click.option("--config-only", is_flag=True, help="As `reload --config-only`.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@with_options
def plan(options: Options, pools: tuple[str, ...], config_only: bool, as_json: bool) -> int:
    """What `lbproxy reload` with the same arguments would do: to listeners, routes and backends, how many connections
    it would touch, the memory it needs, and how long it may take. Nothing is changed.

    Exit code 0; 78: configuration invalid.
    """
    document = ControlClient.of(options).post("/v1/plan", {"pools": list(pools), "config_only": config_only})
    if as_json:
        print(compact(document))
    elif not options.quiet:
        print("\n".join(plan_lines(document, options, width_of_output())))
    return 0
