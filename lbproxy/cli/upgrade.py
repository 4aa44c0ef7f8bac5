"""`lbproxy upgrade`: lbproxy replaces itself by the program that is now installed.

Knows the events of an upgrade and its exit codes. Control does it, and goes on when this command does not.
"""

import time
from typing import Any

import click

from lbproxy.cli.client import FAILED, ConnectionBroke, ControlClient, TimedOut
from lbproxy.cli.options import Fail, Options, with_options
from lbproxy.cli.reload import STILL_GOING_ON, Duration, waiting
from lbproxy.telemetry.events import UpgradeDone, UpgradeProved
from lbproxy.telemetry.text import event_from_json, event_text, printable, text_lines
from lbproxy.telemetry.words import compact

_SLACK_S = 2.0  # a trial that --timeout ends has its own verdict


@click.command(short_help="Replace lbproxy itself, without refusing a connection.")
@click.option("--tunnels", metavar="DURATION", type=Duration(), help='Connections that cannot move may stay ("24h").')
@waiting
@with_options
def upgrade(options: Options, tunnels: float | None, timeout_s: float | None, no_wait: bool, as_json: bool) -> int:
    """Replace the running lbproxy by the one that is now installed: the same pid, the same backends, and no connection
    refused. The installed one is tried beforehand. Returns when the last worker of the old one is gone.

    Exit code 0: done, 5: it failed its trial and nothing has happened, 7: still going on, 8: a reload is running.
    """
    values = {
        name: f"{value:g}s" for name, value in (("timeout", timeout_s), ("tunnels", tunnels)) if value is not None
    }
    stream = ControlClient.of(options).stream("POST", "/v1/upgrade", values)
    if timeout_s is not None:
        stream.deadline = time.monotonic() + timeout_s + _SLACK_S
    proved = False
    try:
        with stream:
            for line in stream:
                event = event_from_json(line)
                proved |= isinstance(event, UpgradeProved)
                _show(options, line, as_json)
                if isinstance(event, UpgradeDone):
                    return _conclude(options, event, as_json)
                if no_wait and proved:
                    return 0
        raise ConnectionBroke("it ended before the upgrade did")
    except TimedOut:
        raise Fail(STILL_GOING_ON, "lbproxy: the upgrade takes longer and goes on: see lbproxy status") from None
    except ConnectionBroke as exc:
        what = "lbproxy ended while it replaced itself" if proved else "the connection to lbproxy broke"
        raise Fail(FAILED, f"lbproxy: {what}: {exc}") from None
    except KeyboardInterrupt:
        raise Fail(130, "lbproxy: the upgrade goes on without this command: see lbproxy status") from None


def _show(options: Options, line: dict[str, Any], as_json: bool) -> None:
    event = event_from_json(line)
    if as_json:
        print(compact(line), flush=True)
    elif event is not None and not isinstance(event, UpgradeDone) and not options.quiet:
        print("\n".join(text_lines(event, str(line.get("time", "")))), flush=True)


def _conclude(options: Options, done: UpgradeDone, as_json: bool) -> int:
    if not as_json:
        first, *more = event_text(done).split("\n")
        for text in more:
            print(f"    | {printable(text)}")
        print(options.colored(printable(first), "red" if done.exit_code else "green"))
    return done.exit_code
