"""`lbproxy rollback, abort, resume, scale, restart`: ask for it, and follow it as `reload` does."""

from typing import Any

import click

from lbproxy.cli.options import Fail, Options, with_options
from lbproxy.cli.reload import ask_and_follow, waiting
from lbproxy.telemetry.events import ReloadDone

USAGE = 2


@click.command(short_help="Bring an earlier generation back.")
@click.argument("pool")
@click.option("--to", type=int, metavar="GEN", help="Which one of those that are kept; the newest without.")
@waiting
@with_options
def rollback(options: Options, pool: str, to: int | None, **how: Any) -> int:
    """Bring an earlier generation of POOL back, on the same way as a reload: its command, directory, environment and
    settings. It gets a new number. The next reload follows the file again.

    Example: lbproxy rollback web --to 5
    """

    def is_back(done: ReloadDone) -> bool:  # of a reload that stood half-way, too
        return done.result == "ok" or (done.result == "aborted" and done.verb == "reload")

    return ask_and_follow(options, "/v1/rollback", {"pool": pool, "to": to}, is_wanted=is_back, **how)


@click.command(short_help="Turn the running reload around.")
@click.argument("pool", required=False)
@waiting
@with_options
def abort(options: Options, pool: str | None, **how: Any) -> int:
    """Turn the running reload around: the old generation serves again, at full strength. Exit code 0 when it does.

    Example: lbproxy abort
    """
    return ask_and_follow(
        options, "/v1/abort", {"pool": pool}, is_wanted=lambda done: done.result in ("ok", "aborted"), **how
    )


@click.command(short_help="Go on with a reload that stopped half-way.")
@click.argument("pool", required=False)
@waiting
@with_options
def resume(options: Options, pool: str | None, **how: Any) -> int:
    """Go on with a reload that stopped half-way (reload.on_failure = "pause"): what broke is started once more.

    Example: lbproxy resume web
    """
    return ask_and_follow(options, "/v1/resume", {"pool": pool}, **how)


@click.command(short_help="Change the number of backends until the next reload.")
@click.argument("change", metavar="POOL=SIZE")
@waiting
@with_options
def scale(options: Options, change: str, **how: Any) -> int:
    """Have SIZE backends in POOL, until the next reload.

    Example: lbproxy scale web=6
    """
    pool, _, size = change.partition("=")
    if not pool or not size.isdecimal():
        raise Fail(USAGE, f"lbproxy: expected POOL=SIZE, such as web=6, got {change!r}")
    return ask_and_follow(options, "/v1/scale", {"pool": pool, "size": int(size)}, **how)


@click.command(short_help="Replace one backend by a new one.")
@click.argument("backend", metavar="POOL.SLOT")
@waiting
@with_options
def restart(options: Options, backend: str, **how: Any) -> int:
    """Replace one backend by a new one of its generation, as a reload does: nothing is lost.

    Example: lbproxy restart web.3
    """
    return ask_and_follow(options, "/v1/restart", {"backend": backend}, **how)
