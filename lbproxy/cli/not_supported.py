"""Commands whose names are fixed but that are not built yet: refused with a clear message."""

import click

from lbproxy.cli.options import Fail

NOT_SUPPORTED = 1


def not_supported_command(name: str) -> click.Command:
    @click.command(
        name,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        short_help="(not supported yet)",
    )
    def command() -> None:
        """Not supported yet."""
        raise not_supported(name)

    return command


def not_supported(what: str) -> Fail:
    return Fail(NOT_SUPPORTED, f"lbproxy: '{what}' is not supported yet")
