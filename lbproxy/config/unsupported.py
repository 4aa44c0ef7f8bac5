"""Keys of the contract that this version does not support yet: refused with their line, never silently ignored.

The one table of such keys. A key that becomes supported is deleted here (and, if it is new, added to the schema).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lbproxy.config.problems import Finding, Path, dotted, shown


@dataclass(frozen=True, slots=True)
class NotYet:
    """`path`: "*" stands for any name or element. `only`: the values that are refused; None = all of them."""

    path: tuple[str, ...]
    only: tuple[str | bool, ...] | None = None


NOT_YET = (
    NotYet(("cluster",)),
    NotYet(("pool", "*", "sticky", "cluster"), only=(True,)),
)


def take_out(document: dict[str, Any]) -> list[Finding]:
    """Remove the unsupported keys from `document` and report them, so that the schema need not know them."""
    findings = []
    for not_yet in NOT_YET:
        for path, table in list(_tables(document, not_yet.path[:-1])):
            key = not_yet.path[-1]
            value = table.get(key)
            if key in table and (not_yet.only is None or value in not_yet.only):
                findings.append(_finding((*path, key), table.pop(key), not_yet))
    return findings


def _finding(path: Path, value: object, not_yet: NotYet) -> Finding:
    what = f"[{path[0]}]" if len(path) == 1 else dotted(path)
    if not_yet.only is not None:
        what += f" = {shown(value)}"
    return Finding(path, f"{what} is not supported yet", named=False, at_table=isinstance(value, dict))


def _tables(node: object, pattern: tuple[str, ...], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every table of the document that the pattern leads to."""
    if not pattern:
        if isinstance(node, dict):
            yield path, node
        return
    inner: list[tuple[str | int, object]] = []
    if isinstance(node, dict):
        inner = [*node.items()] if pattern[0] == "*" else [(pattern[0], node.get(pattern[0]))]
    elif isinstance(node, list) and pattern[0] == "*":
        inner = [*enumerate(node)]
    for name, below in inner:
        yield from _tables(below, pattern[1:], (*path, name))
