"""A document as the text of a TOML file. Standard Python reads TOML (tomllib) and does not write it.

Knows strings, numbers, booleans, lists and tables: the values that a configuration has.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(document: Mapping[str, Any]) -> str:
    """Every table has a header of its own; keys stand before the tables below them."""
    return "\n".join(_lines(document, ())).strip("\n") + "\n"


def value_text(value: Any) -> str:
    """One value on one line; a table becomes an inline table."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key_text(key)} = {value_text(below)}" for key, below in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    return repr(value)


def key_text(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else value_text(key)


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping) or _is_listed(value, path)}
    for key, value in table.items():
        if key not in tables:
            yield f"{key_text(key)} = {value_text(value)}"
    for key, value in tables.items():
        below = (*path, key)
        name = ".".join(map(key_text, below))
        if not isinstance(value, Mapping):
            for element in value:
                yield from ("", f"[[{name}]]", *_lines(element, below))
        elif all(isinstance(inner, Mapping) for inner in value.values()) and value:
            yield from _lines(value, below)
        else:
            yield from ("", f"[{name}]", *_lines(value, below))


def _is_listed(value: Any, path: tuple[str, ...]) -> bool:
    """Whether a value is written as [[name]]: a list of tables at the top."""
    return not path and isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)
