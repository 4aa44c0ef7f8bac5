"""The verbs besides `reload`: ask for it, and follow what takes time as `reload` does."""

from typing import Any

import click

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Fail, Options, with_options
from lbproxy.cli.reload import ask_and_follow, waiting
from lbproxy.settings import LONGEST_PAGE_BYTES
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
    """

    def is_back(done: ReloadDone) -> bool:  # of a reload that stood half-way, too
        return done.result == "ok" or (done.result == "aborted" and done.verb == "reload")

    return ask_and_follow(options, "/v1/rollback", {"pool": pool, "to": to}, is_wanted=is_back, **how)


@click.command(short_help="Turn the running reload around.")
@click.argument("pool", required=False)
@waiting
@with_options
def abort(options: Options, pool: str | None, **how: Any) -> int:
    """Turn the running reload around: the old generation serves again, at full strength. Exit code 0 when it does."""
    return ask_and_follow(
        options, "/v1/abort", {"pool": pool}, is_wanted=lambda done: done.result in ("ok", "aborted"), **how
    )


@click.command(short_help="Go on with a reload that stopped half-way.")
@click.argument("pool", required=False)
@waiting
@with_options
def resume(options: Options, pool: str | None, **how: Any) -> int:
    """Go on with a reload that stopped half-way (reload.on_failure = "pause"): what broke is started once more."""
    return ask_and_follow(options, "/v1/resume", {"pool": pool}, **how)


@click.command(short_help="Change the number of backends until the next reload.")
@click.argument("change", metavar="POOL=SIZE")
@waiting
@with_options
def scale(options: Options, change: str, **how: Any) -> int:
    """Have SIZE backends in POOL, until the next reload."""
    pool, _, size = change.partition("=")
    if not pool or not size.isdecimal():
        raise Fail(USAGE, f"lbproxy: expected POOL=SIZE, such as web=6, got {change!r}")
    return ask_and_follow(options, "/v1/scale", {"pool": pool, "size": int(size)}, **how)


@click.command(short_help="Replace one backend by a new one.")
@click.argument("backend", metavar="POOL.SLOT")
@waiting
@with_options
def restart(options: Options, backend: str, **how: Any) -> int:
    """Replace one backend by a new one of its generation, as a reload does: nothing is lost."""
    return ask_and_follow(options, "/v1/restart", {"backend": backend}, **how)


@click.command(short_help="Give one backend no new work.")
@click.argument("backend", metavar="POOL.SLOT")
@click.option("--force", is_flag=True, help="Even if it is the last ready one of its pool.")
@click.option("--why", is_flag=True, help="Drain nothing: say what a drain that goes on waits for.")
@waiting
@with_options
def drain(options: Options, backend: str, force: bool, why: bool, **how: Any) -> int:
    """Give one backend no new work, until it is undrained, or replaced by a reload. Its process goes on. Returns when
    its work in hand is done.
    """
    if why:
        from lbproxy.cli.connections import why as say_why

        return say_why(ControlClient.of(options), backend)
    return ask_and_follow(options, "/v1/drain", {"backend": backend, "force": force}, **how)


@click.command(short_help="Give a drained backend work again.")
@click.argument("backend", metavar="POOL.SLOT")
@with_options
def undrain(options: Options, backend: str) -> int:
    """Give a drained backend work again."""
    ControlClient.of(options).post("/v1/undrain", {"backend": backend})
    _say(options, f"{backend} gets work again")
    return 0


@click.command(short_help="Let a pool's requests wait, or answer them with a page.")
@click.argument("pool")
@click.option("--max-wait", metavar="DURATION", help='How long each request waits ("30s"); then it gets 503.')
@click.option("--maintenance", is_flag=True, help="Answer with 503 at once.")
@click.option("--message", metavar="TEXT|@FILE", help="With --maintenance: the page, text or HTML.")
@with_options
def pause(options: Options, pool: str, max_wait: str | None, maintenance: bool, message: str | None) -> int:
    """Let the requests of POOL wait until `unpause`, or answer them with 503 and a page. WebSockets and TCP sessions
    are not touched.
    """
    if message is not None and not maintenance:
        raise Fail(USAGE, "lbproxy: --message needs --maintenance")
    if max_wait is not None and maintenance:
        raise Fail(USAGE, "lbproxy: --max-wait and --maintenance exclude each other")
    values = {"pool": pool, "maintenance": maintenance, "message": _text_of(message), "max_wait": max_wait}
    ControlClient.of(options).post("/v1/pause", {key: value for key, value in values.items() if value is not None})
    what = "answered with 503" if maintenance else f"wait{f' up to {max_wait} each' if max_wait is not None else ''}"
    _say(options, f"{pool}: requests {'are ' if maintenance else ''}{what}, until lbproxy unpause {pool}")
    return 0


@click.command(short_help="Let a paused pool serve again.")
@click.argument("pool")
@with_options
def unpause(options: Options, pool: str) -> int:
    """Let a paused pool serve again: what has waited goes first."""
    ControlClient.of(options).post("/v1/unpause", {"pool": pool})
    _say(options, f"{pool} serves again")
    return 0


def _text_of(message: str | None) -> str | None:
    """The text, or what the file behind an @ says."""
    if message is None or not message.startswith("@"):
        return message
    try:
        with open(message[1:], "rb") as file:
            page = file.read(LONGEST_PAGE_BYTES + 1)
        if len(page) > LONGEST_PAGE_BYTES:
            raise Fail(USAGE, f"lbproxy: --message: {message[1:]}: more than {LONGEST_PAGE_BYTES} bytes")
        return page.decode()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise Fail(USAGE, f"lbproxy: --message: {message[1:]}: {reason}") from None


def _say(options: Options, text: str) -> None:
    if not options.quiet:
        print(text)
