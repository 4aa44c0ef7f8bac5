"""The command line: which commands there are, and how any of them ends.

A command's module is imported when that command runs: `lbproxy status` must not pay for `serve`.
"""

import contextlib
import difflib
import importlib
import os
import sys
from typing import Any

import click

from lbproxy.cli.examples import epilog
from lbproxy.cli.not_supported import not_supported_command
from lbproxy.cli.options import OUTPUT_CLOSED, Fail, Options, with_options
from lbproxy.descriptors import open_missing_streams

_COMPLETION = "_LBPROXY_COMPLETE"  # as completion.py has it
_FROM_ENVIRONMENT = {"config": "LBPROXY_CONFIG", "control": "LBPROXY_CONTROL"}
INTERRUPTED = 130  # as a shell shows a program that SIGINT ended

COMMANDS = {
    "serve": "serve",
    "check": "check",
    "explain": "explain",
    "init": "init",
    "status": "status",
    "reload": "reload",
    "plan": "plan",
    "rollback": "verbs.rollback",
    "abort": "verbs.abort",
    "resume": "verbs.resume",
    "history": "history",
    "scale": "verbs.scale",
    "drain": "verbs.drain",
    "undrain": "verbs.undrain",
    "pause": "verbs.pause",
    "unpause": "verbs.unpause",
    "restart": "verbs.restart",
    "connections": "connections",
    "close": "connections.close",
    "logs": "logs",
    "events": "events",
    "why": "why",
    "top": "top",
    "upgrade": "upgrade",
    "stop": "stop",
    "schema": "schema",
    "completion": "completion",
    "version": "version",
    "cluster": None,  # None: fixed in CONTRACT.md, not built yet
}


class Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = COMMANDS[cmd_name]
        if module is None:
            return not_supported_command(cmd_name)
        module, _, name = module.partition(".")
        command: click.Command = getattr(importlib.import_module(f"lbproxy.cli.{module}"), name or module)
        command.epilog = command.epilog or epilog(cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise click.UsageError(f"no command is called '{name}'{hint}", ctx)
        return super().resolve_command(ctx, args)


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from lbproxy.cli.version import text

        print(text())
        context.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="What a command does: lbproxy COMMAND --help. What a key of the configuration does: lbproxy explain KEY.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it and exit."
)
@with_options
def lbproxy(options: Options) -> None:
    """A load balancer that supervises its backends and replaces them without a client noticing. Linux only."""


def main() -> None:
    open_missing_streams()
    sys.exit(run(sys.argv[1:]))


def run(args: list[str], environ: dict[str, str] | None = None) -> int:
    """Run one command; returns the exit code."""
    if sys.platform != "linux":
        print("lbproxy: runs on Linux only", file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _invoke(args, os.environ if environ is None else environ)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except Fail as exc:
        return _failed(exc)
    except KeyboardInterrupt:
        return _failed(Fail(INTERRUPTED))
    except BrokenPipeError:
        return _failed(Fail(OUTPUT_CLOSED))
    except OSError as exc:  # standard output on a full disk; commands translate their own errors
        return _failed(Fail(1, f"lbproxy: {exc.strerror or exc}"))


def _invoke(args: list[str], environ: Any) -> int:
    if instruction := environ.get(_COMPLETION):
        from lbproxy.cli.completion import answer

        return answer(lbproxy, instruction)
    outer = [f"--{key}={environ[name]}" for key, name in _FROM_ENVIRONMENT.items() if environ.get(name)]
    try:
        with lbproxy.make_context("lbproxy", outer + args) as context:
            return int(lbproxy.invoke(context) or 0)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        if isinstance(exc, click.UsageError) and (file := next((arg for arg in args if arg.endswith(".toml")), None)):
            exc = click.UsageError(f"{exc.message} (a file is named with -c: lbproxy {args[0]} -c {file})", exc.ctx)
        exc.show()
        return exc.exit_code


def _failed(fail: Fail) -> int:
    is_lost = fail.exit_code == OUTPUT_CLOSED
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        is_lost = True
    if fail.text:
        with contextlib.suppress(OSError):
            print(fail.text, file=sys.stderr)
    if is_lost:
        # The rest of the buffer must not raise again when Python shuts down: that would be exit code 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return fail.exit_code


if __name__ == "__main__":
    main()
