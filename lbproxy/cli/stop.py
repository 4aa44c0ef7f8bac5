"""`lbproxy stop`: returns when the process is gone."""

import os
import select

import click

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Fail, Options, with_options


@click.command(short_help="Drain and stop; returns when it is gone.")
@click.option("--now", is_flag=True, help="Without waiting for work in hand.")
@with_options
def stop(options: Options, now: bool) -> int:
    """Drain and stop. Returns when the process is gone."""
    client = ControlClient.of(options)
    pid = int(client.post("/v1/stop", {"now": now})["pid"])
    try:
        wait_gone(pid)
    except KeyboardInterrupt:
        raise Fail(130, f"lbproxy: pid {pid} goes on stopping without this command") from None
    if not options.quiet:
        print(f"stopped pid {pid}")
    return 0


def wait_gone(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError as exc:
        raise Fail(1, f"lbproxy: pid {pid} was told to stop, but cannot be waited for: {exc.strerror}") from None
    try:
        select.select([process], [], [])
    finally:
        os.close(process)
