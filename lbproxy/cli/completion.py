"""`lbproxy completion`: the script with which a shell completes commands and options."""

import click
from click.shell_completion import get_completion_class, shell_complete

from lbproxy.cli.options import Options, with_options

PROGRAM = "lbproxy"
VARIABLE = "_LBPROXY_COMPLETE"  # set by the script: lbproxy answers what could come next
SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="The completion script of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@with_options
def completion(options: Options, shell: str) -> int:
    """Print the script with which SHELL completes commands and options of lbproxy.

    bash and zsh read it in ~/.bashrc and ~/.zshrc: source <(lbproxy completion bash)
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    print(kind(root, {}, PROGRAM, VARIABLE).source())
    return 0


def answer(root: click.Command, instruction: str) -> int:
    """Print what could come next, as the script asks. Returns the exit code."""
    return shell_complete(root, {}, PROGRAM, VARIABLE, instruction)
