"""`lbproxy status`: what runs, as a table or as JSON, and whether it is well.

Has to answer within 150 ms: standard library and click, nothing else.
"""

import click

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Options, with_options
from lbproxy.cli.status_document import exit_code, status_of
from lbproxy.cli.status_text import status_lines, width_of_output
from lbproxy.telemetry.words import compact


@click.command(short_help="What runs, and whether it is well.")
@click.argument("pool", required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option("-w", "--watch", is_flag=True, help="Again every second, until q or Ctrl-C.")
@with_options
def status(options: Options, pool: str | None, as_json: bool, watch: bool) -> int:
    """The state of every part. Exit code 0: all healthy, 3: not running, 4: degraded.

    Example: lbproxy status web --watch
    """
    if watch:
        from lbproxy.cli.watch import watch_status

        return watch_status(options, pool, as_json=as_json)
    answer = status_of(ControlClient.of(options), pool)
    if as_json:
        print(compact(answer))
    elif not options.quiet:
        print("\n".join(status_lines(answer, options, width_of_output())))
    return exit_code(answer)
