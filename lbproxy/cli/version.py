"""`lbproxy version`, and `lbproxy --version`."""

import platform

import click

from lbproxy import __version__
from lbproxy.cli.options import Options, with_options


@click.command
@with_options
def version(options: Options) -> None:
    """The version of lbproxy and of the Python that runs it."""
    print(text())


def text() -> str:
    return f"lbproxy {__version__} (Python {platform.python_version()})"
