"""The document against the schema: its tables, or everything in it that has the wrong shape.

Translates the errors of pydantic to findings, and names the key that an unknown one may mean.
"""

from typing import Any

import pydantic

from lbproxy.config.problems import Finding, Path, closest, dotted, header, shown
from lbproxy.config.schema import Document
from lbproxy.config.secret import Secrets
from lbproxy.config.tables import keys, table_at, tables


def read(document: dict[str, Any], secrets: Secrets | None = None) -> Document | list[Finding]:
    """The document as tables, or everything in it that has the wrong shape."""
    try:
        return Document.model_validate(document, context=secrets or Secrets())
    except pydantic.ValidationError as exc:
        return [_finding(error["type"], error) for error in exc.errors(include_url=False)]


def _finding(kind: str, error: Any) -> Finding:
    path: Path = error["loc"]
    value = error["input"]
    match kind:
        case "extra_forbidden":
            return _unknown(path, value)
        case "missing":
            message = f"'{path[-1]}' is missing in {header(path[:-1])}"
            return Finding(path[:-1], message, named=False, at_table=True, lacks=(str(path[-1]),))
        case "value_error":
            return Finding(path, str(error["ctx"]["error"]))
        case "literal_error":
            expected = error["ctx"]["expected"].replace("'", '"' if type(value) in (int, float) else "")
            return Finding(path, f"expected {expected}, got {shown(value)}")
        case "list_type":
            written = f" (write [[{dotted(path)}]])" if isinstance(value, dict) else ""
            return Finding(path, f"expected a list, got {shown(value)}{written}", at_table=True)
        case "model_type" | "dict_type":
            written = f" (write [{dotted(path) if len(path) > 1 else 'pool.' + _pool_name(value)}])"
            written = written if isinstance(value, list) else ""
            example = " such as [pool.web]" if path[0] == "pool" and len(path) == 2 else ""
            got = "" if path[0] == "events" else f", got {shown(value)}"  # it may be a URL
            return Finding(path, f"expected a table{example}{got}{written}", at_table=True)
    return Finding(path, str(error["msg"]))


def _unknown(path: Path, value: object) -> Finding:
    *above, key = path
    parents = tuple(above)
    where = f" in {header(parents)}" if parents else ""
    homes = [home for home, table in tables(Document) if home and key in keys(table)]
    # `drain` is more probably a key in the wrong place than a misspelt `admin`.
    means = closest(str(key), keys(table_at(parents)), 0.75 if homes else 0.6)
    if means is not None:
        return Finding(path, f"unknown key '{key}'{where} (did you mean '{means}'?)", named=False, means=means)
    pool = next((str(part) for part in parents[1:2] if parents[0] == "pool"), "NAME")
    places = [_place(home, str(key), value).replace("*", pool) for home in homes]
    if 0 < len(places) <= 3:
        hint = f"it belongs {' or '.join(places)}"
    else:
        hint = f"there is: {', '.join(keys(table_at(parents)))}"
    return Finding(path, f"unknown key '{key}'{where} ({hint})", named=False)


def _place(home: str, key: str, value: object) -> str:
    """Where a key can stand: "in [proxy]"; a table by its whole name: "in [pool.NAME.health]"."""
    is_listed = home in ("listener", "route")
    if isinstance(value, dict | list):
        return f"in [{home}.{key}] behind a [[{home}]]" if is_listed else f"in [{home}.{key}]"
    if home.startswith("listener."):
        return f"in [{home}] behind a [[listener]]"
    return f"in [[{home}]]" if is_listed else f"in [{home}]"


def _pool_name(value: object) -> str:
    """The name of a pool that is written as [[pool]], for the message."""
    first = value[0] if isinstance(value, list) and value else None
    name = first.get("name") if isinstance(first, dict) else None
    return name if isinstance(name, str) else "NAME"
