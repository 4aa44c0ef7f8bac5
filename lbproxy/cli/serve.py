"""`lbproxy serve`: from a file, or from a listener and a command."""

import os
import signal
from collections import ChainMap
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from lbproxy.cli.check import CONFIG_INVALID
from lbproxy.cli.options import Fail, Options, with_options

if TYPE_CHECKING:
    from lbproxy.settings import Settings

_LEVELS = ("debug", "info", "warning", "error")


@click.command(short_help="Run in the foreground.")
@click.option("-n", "--size", type=click.IntRange(min=1), metavar="SIZE", help="Backends, in the form without a file.")
@click.option("-l", "--listen", metavar="ADDRESS", help="Where to listen, in the form without a file.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@with_options
def serve(options: Options, size: int | None, listen: str | None, command: tuple[str, ...]) -> int:
    """Run in the foreground, as the file says or without one:

    lbproxy serve -n 4 -l :8080 -- uvicorn app:app --port {port}
    """
    without_file = bool(command or size or listen)
    if without_file and not (command and listen):
        raise click.UsageError(
            "without a file it is: lbproxy serve -n 4 -l :8080 -- COMMAND, and {port} in the command"
        )
    from lbproxy.config.control_path import named_path
    from lbproxy.control.program import Program

    here = os.environ["PWD"] = named_path("")  # also for the programs of later upgrades: this directory may be deleted
    full = named_path(options.config_path)
    program = Program.take(os.environ)
    taken = None if program.is_trial else program.document_fd  # `lbproxy upgrade` has executed this program
    # A reload signal that comes while lbproxy starts (the imports below take their time) is too early, but must not
    # kill the process.
    ignored = take_over_signals(unblock=taken is None)
    from lbproxy.privileges import hide_memory

    hide_memory()  # before there are secrets in it
    from lbproxy.config.load import from_command, load
    from lbproxy.config.problems import ConfigInvalid
    from lbproxy.config.secret import withhold
    from lbproxy.errors import LbproxyError

    withheld: dict[str, str] = {}  # variables that hold secrets: a reload reads them here, no child inherits them

    def read() -> "Settings":
        if without_file:
            return overridden(from_command(str(listen), size or 1, command, here), options)
        settings = load(options.config_path, full, ChainMap(withheld, os.environ))
        withheld.update(withhold(settings, os.environ))
        return overridden(settings, options)

    try:
        if program.is_trial and program.document_fd is not None:
            return _try_to_take_over(program.document_fd, read)
        settings = read() if taken is None else None
        from lbproxy.supervise.program_copy import make_copy

        copy = make_copy()  # before the other imports: from here on a change of the installed files changes nothing
        try:
            from lbproxy.control.app import serve as run
            from lbproxy.control.document import read_document
            from lbproxy.control.parts import Start, settings_of

            document = read_document(taken) if taken is not None else None
            if document is not None and taken is not None:
                os.close(taken)
                settings = settings_of(document)
                withheld.update(withhold(settings, os.environ))
            assert settings is not None
            return run(settings, read, Start(program, copy, signal.SIGHUP in ignored, document))
        finally:
            if copy is not None:
                copy.close()
    except ConfigInvalid as exc:
        raise Fail(CONFIG_INVALID, exc.text) from None
    except LbproxyError as exc:
        raise Fail(1, f"lbproxy: {exc}") from None


def _try_to_take_over(document_fd: int, read: Callable[[], "Settings"]) -> int:
    """The trial of `lbproxy upgrade`, in a process of its own. The running lbproxy reads the line."""
    from dataclasses import asdict

    from lbproxy.control.trial import try_to_take_over
    from lbproxy.telemetry.words import compact

    print(compact(asdict(try_to_take_over(document_fd, read))))
    return 0


def take_over_signals(*, unblock: bool = True) -> frozenset[signal.Signals]:
    """Signals become lbproxy's own: reload signals are ignored until control listens, and none is blocked. (Those that
    came while lbproxy executed itself wait behind the mask until control listens.)

    Returns the signals that were ignored when this process was started (nohup ignores HUP). They get an empty handler
    instead: an ignored signal stays ignored in every child, but backends are to start with the default.
    """
    if unblock:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    ours = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these itself, and restores them in children
    ignored = frozenset(
        number
        for number in signal.valid_signals() - set(ours)
        if signal.getsignal(number) is signal.SIG_IGN and isinstance(number, signal.Signals)
    )
    for number in {*ignored, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}:
        signal.signal(number, _ignore)
    return ignored


def _ignore(number: int, frame: object) -> None:
    pass


def overridden(settings: "Settings", options: Options) -> "Settings":
    """--control, and -v and -q as steps of the log's level."""
    from lbproxy.config.control_path import named_path

    if options.control:
        settings = replace(settings, proxy=replace(settings.proxy, control=named_path(options.control)))
    if options.verbosity:
        step = _LEVELS.index(settings.log.level) - options.verbosity
        level = _LEVELS[min(max(step, 0), len(_LEVELS) - 1)]
        settings = replace(settings, log=replace(settings.log, level=level))
    return settings
