"""`lbproxy explain`: what a key of the configuration does."""

import json
import shutil
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from lbproxy.cli.not_supported import not_supported
from lbproxy.cli.options import Fail, Options, on_terminal, with_options

if TYPE_CHECKING:
    from lbproxy.config.reference import Entry

UNKNOWN_KEY = 2
_LABEL = 11  # columns


def _completions(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The keys that begin so, for completion in a shell."""
    from lbproxy.config import reference

    pool = reference.pool_in(begun)
    return [name for entry in reference.entries() if (name := entry.name_for(pool)).startswith(begun)]


@click.command(short_help="What a key of the configuration does.")
@click.argument("key", required=False, shell_complete=_completions)
@click.option("--json", "as_json", is_flag=True, help="A JSON array of keys.")
@with_options
def explain(options: Options, key: str | None, as_json: bool) -> int:
    """What KEY does: type, unit, default, an example, and when a change takes effect. Without KEY: all keys.

    KEY is a whole name, with a pool's own name or NAME, or the end of one: `drain.websocket`.
    """
    from lbproxy.config import reference

    found = reference.find(key) if key is not None else list(reference.entries())
    if not found and key is not None:
        raise _unknown(key)
    pool = reference.pool_in(key)
    if as_json:
        print(json.dumps([_facts(entry) for entry in found], indent=2))
    elif key is None:
        print("\n".join(_list(found, options)))
    else:
        print("\n\n".join("\n".join(_explained(entry, pool, options)) for entry in found))
    return 0


def _unknown(key: str) -> Fail:
    from lbproxy.config import reference

    if reference.not_supported(key):
        return not_supported(key)
    near = [f"'{name}'" for name in reference.nearest_names(key)]
    hint = f"did you mean {' or '.join(near)}?" if near else "lbproxy explain lists all keys"
    return Fail(UNKNOWN_KEY, f"lbproxy: no key is called '{key}' ({hint})")


def _explained(entry: "Entry", pool: str, options: Options) -> Iterator[str]:
    """`pool`: the name that stands for NAME."""
    from lbproxy.config import reference

    name, header = entry.name_for(pool), entry.header_for(pool)
    yield options.colored(header if entry.is_table else name, "green")
    yield from _wrapped("", entry.about, 2)
    yield ""
    if entry.is_table:
        yield from _rows(reference.below(entry))
        return
    yield from _wrapped("  type", entry.kind, _LABEL)
    yield from _wrapped("  default", entry.default_text, _LABEL)
    yield f"{'  example'.ljust(_LABEL)}{header}{_where(entry)}"
    yield f"{' ' * _LABEL}{entry.written}"
    yield from _wrapped("  applies", entry.applies, _LABEL)


def _where(entry: "Entry") -> str:
    above = entry.path[:-1]
    return "    # behind a [[listener]]" if above[:1] == ("listener",) and len(above) > 1 else ""


def _list(found: list["Entry"], options: Options) -> Iterator[str]:
    for entry in found:
        if entry.is_table:
            yield from ("", options.colored(entry.header_for(), "green"), f"  {entry.about}")
            yield from _rows([one for one in found if one.path[:-1] == entry.path and not one.is_table])


def _rows(entries: list["Entry"]) -> Iterator[str]:
    width = max((len(entry.path[-1]) for entry in entries), default=0) + 6
    for entry in entries:
        yield from _wrapped(f"    {entry.path[-1]}", entry.about, width)


def _wrapped(label: str, text: str, indent: int) -> list[str]:
    """`label` and, from column `indent` on, the text: as wide as the terminal; on one line where there is none."""
    width = max(40, shutil.get_terminal_size().columns) if on_terminal() else 10_000
    return textwrap.wrap(text, width, initial_indent=label.ljust(indent), subsequent_indent=" " * indent) or [label]


def _facts(entry: "Entry") -> dict[str, Any]:
    facts: dict[str, Any] = {"key": entry.name_for(), "about": entry.about, "type": entry.kind}
    if entry.is_table:
        return facts
    return {
        **facts,
        "default": entry.default,
        "default_text": entry.default_text,
        "example": entry.example,
        "applies": entry.applies,
    }
