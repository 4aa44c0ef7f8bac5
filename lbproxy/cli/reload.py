"""`lbproxy reload`: ask for it, show it while it goes on, end with one verdict for each pool.

Knows the events of a reload and its exit codes. The reload itself is control's, and goes on when this command does not.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import click

from lbproxy.cli.client import FAILED, ConnectionBroke, ControlClient, Stream, TimedOut
from lbproxy.cli.options import Fail, Options, on_terminal, with_options
from lbproxy.config.units import positive_duration
from lbproxy.telemetry.events import BackendExited, BackendNotReady, Event, ReloadDone, ReloadFinished
from lbproxy.telemetry.text import comparison, event_from_json, printable, text_lines, verdict
from lbproxy.telemetry.words import compact

STILL_GOING_ON = 7

F = TypeVar("F", bound=Callable[..., Any])


class Shows(Protocol):
    """Shows what happens while it happens."""

    def start(self) -> None: ...
    def show(self, values: dict[str, Any], event: Event | None) -> None: ...
    def end(self) -> None: ...


class Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else positive_duration(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def waiting(command: F) -> F:
    """The options of a command that waits for what it asks for."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
        click.option("--no-wait", is_flag=True, help="Return when it has begun."),
        click.option(
            "--timeout",
            "timeout_s",
            type=Duration(),
            metavar="DURATION",
            help='Wait at most so long ("5m"); exit code 7 after it.',
        ),
    ):
        command = option(command)
    return command


@click.command(short_help="Replace every backend without losing a request.")
@click.argument("pools", nargs=-1, metavar="[POOL...]")
@click.option("--config-only", is_flag=True, help="Replace only backends whose configuration changed.")
@waiting
@with_options
def reload(options: Options, pools: tuple[str, ...], **how: Any) -> int:
    """Read the configuration anew and replace the backends of all pools, or of those named.

    Exit code 0: done, 1: aborted, 5: rolled back, 6: capacity reduced, 7: still going on, 8: another one is running,
    9: stopped half-way (`on_failure = "pause"`), 78: configuration invalid.
    """
    values = {"pools": list(pools), "config_only": how.pop("config_only")}
    return ask_and_follow(options, "/v1/reload", values, **how)


def ask_and_follow(
    options: Options,
    target: str,
    values: dict[str, Any],
    *,
    timeout_s: float | None,
    no_wait: bool,
    as_json: bool,
    is_wanted: Callable[[ReloadDone], bool] | None = None,
) -> int:
    """Ask for a change of the pools, and show it to its end. Returns control's exit code, or 0: all is as wanted."""
    client = ControlClient.of(options)
    stream = client.stream("POST", target, values)
    if timeout_s is not None:
        stream.deadline = time.monotonic() + timeout_s
    shows: Shows = JsonLines() if as_json else Nothing() if options.quiet else TextLines()
    if on_terminal() and not as_json and not options.quiet and not no_wait:
        from lbproxy.cli.live import LiveBlock

        shows = LiveBlock(client, colored=bool(options.colored("", "red")))
    with stream:
        return Following(options, shows, is_wanted).follow(stream, no_wait=no_wait)


class Following:
    """Reads the events of one reload to its end."""

    def __init__(self, options: Options, shows: Shows, is_wanted: Callable[[ReloadDone], bool] | None = None) -> None:
        self._options = options
        self._is_wanted = is_wanted
        self._shows = shows
        self._done: list[tuple[dict[str, Any], ReloadDone]] = []
        self._said: dict[str, tuple[str, ...]] = {}  # the last lines of each backend that broke

    def follow(self, stream: Stream, *, no_wait: bool) -> int:
        self._shows.start()
        try:
            finished = self._read(stream, no_wait)
        except TimedOut:
            raise Fail(STILL_GOING_ON, "lbproxy: the reload takes longer and goes on: see lbproxy status") from None
        except ConnectionBroke as exc:
            raise Fail(FAILED, f"lbproxy: the connection to lbproxy broke during the reload: {exc}") from None
        except KeyboardInterrupt:
            raise Fail(130, "lbproxy: the reload goes on without this command: see lbproxy status") from None
        finally:
            self._shows.end()
        if finished is None:
            return 0
        code = self._conclude(finished)
        is_wanted = self._is_wanted
        return 0 if is_wanted is not None and self._done and all(is_wanted(done) for _, done in self._done) else code

    def _read(self, stream: Stream, no_wait: bool) -> tuple[dict[str, Any], ReloadFinished] | None:
        for values in stream:
            event = event_from_json(values)
            match event:
                case ReloadFinished():
                    return values, event
                case ReloadDone():
                    # Kept: the verdicts are the last lines of all.
                    self._done.append((values, event))
                case BackendExited(output=output) | BackendNotReady(output=output):
                    # Kept too: of a broken deploy each attempt tells the same, and so does the verdict.
                    self._said[event.backend] = output or self._said.get(event.backend, ())
                    event = replace(event, output=())
            self._shows.show(values, event)
            if no_wait:
                return None
        raise ConnectionBroke("it ended before the reload did")

    def _conclude(self, finished: tuple[dict[str, Any], ReloadFinished]) -> int:
        values, event = finished
        if isinstance(self._shows, JsonLines):
            for last in [values for values, _ in self._done] or [values]:
                print(compact(last))
            return event.exit_code
        for _, done in self._done:
            for line in [*explanation(done), *(last_words(done, self._said) if event.exit_code else [])]:
                print(line)
            if done.differs and done.verb != "scale":
                print(f"{done.pool}: not as in the file, until the next reload: {printable(', '.join(done.differs))}")
            if (compared := comparison(done)) is not None:
                print(printable(compared))
        if event.exit_code and event.text:
            if not self._done:
                raise Fail(event.exit_code, event.text if "\n" in event.text else f"lbproxy: {event.text}")
            print(printable_lines(event.text))
        for _, done in self._done:
            print(self._options.colored(printable(verdict(done)), "green" if done.result == "ok" else "red"))
        return event.exit_code


class Nothing:
    def start(self) -> None:
        pass

    def show(self, values: dict[str, Any], event: Event | None) -> None:
        pass

    def end(self) -> None:
        pass


class TextLines(Nothing):
    """Timestamped lines."""

    def show(self, values: dict[str, Any], event: Event | None) -> None:
        if event is not None and not isinstance(event, ReloadDone):
            print("\n".join(text_lines(event, str(values.get("time", "")))), flush=True)


class JsonLines(Nothing):
    def show(self, values: dict[str, Any], event: Event | None) -> None:
        if not isinstance(event, ReloadDone):
            print(compact(values), flush=True)


def explanation(done: ReloadDone) -> list[str]:
    """What the process of a pool that was not reloaded said last. The reason stands in the verdict, behind all this."""
    if done.result == "ok" or not done.output:
        return []
    backend, found, _ = (done.why or "").partition(": ")
    return [printable(f"{backend if found and '@' in backend else done.pool} wrote last:"), *_indented(done.output)]


def last_words(done: ReloadDone, said: dict[str, tuple[str, ...]]) -> list[str]:
    """The output of the other broken backends: old ones that did not come back. The verdict has only one output."""
    lines = []
    for backend, output in said.items():
        pool, _, generation = backend.rpartition("@")
        if output and pool.rpartition(".")[0] == done.pool and generation != str(done.generation):
            lines += [printable(f"{backend} wrote last:"), *_indented(output)]
    return lines


def _indented(output: tuple[str, ...]) -> list[str]:
    return [f"    | {printable(line)}" for line in output]


def printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))
