"""Every key that the file can have as a value: what it does, its type, its default, an example, when it takes effect.

Made from the schema and from the defaults of settings.py. `lbproxy explain` prints it; json_schema.py writes it for
editors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from lbproxy.config.build import build
from lbproxy.config.effective import effective
from lbproxy.config.pool_tables import PoolTable
from lbproxy.config.problems import closest
from lbproxy.config.schema import Document
from lbproxy.config.secret import Secrets
from lbproxy.config.table import Table
from lbproxy.config.tables import container_of, facts_of, kind_of, table_in, texts_below
from lbproxy.config.toml_text import key_text, value_text
from lbproxy.config.unsupported import NOT_YET

ANY = "NAME"  # stands for the name of a pool
LISTED = ("listener", "route")


@dataclass(frozen=True, slots=True)
class Entry:
    """One key, or one table."""

    path: tuple[str, ...]  # ("pool", "NAME", "drain", "websocket")
    about: str
    kind: str
    json: dict[str, Any]  # its JSON Schema; empty for a table
    default: Any  # as the file writes it; None = none, or `unset` says it
    unset: str | None
    example: Any
    applies: str
    is_table: bool = False
    is_required: bool = False

    def name_for(self, pool: str = ANY) -> str:
        return ".".join(pool if part == ANY else part for part in self.path)

    def header_for(self, pool: str = ANY) -> str:
        """The header of the table that the key stands in, or of the table itself."""
        table = self.path if self.is_table else self.path[:-1]
        if len(table) == 1 and table[0] in LISTED:
            return f"[[{table[0]}]]"
        return f"[{'.'.join(pool if part == ANY else part for part in table)}]"

    @property
    def written(self) -> str:
        """The example as the file writes it."""
        return f"{key_text(self.path[-1])} = {value_text(self.example)}"

    @property
    def default_text(self) -> str:
        if self.unset is not None:
            return self.unset
        return "none" if self.default is None else value_text(self.default)


@cache
def entries() -> tuple[Entry, ...]:
    """Tables and keys, in the order of the schema."""
    return tuple(_entries(Document, (), defaults()))


@cache
def defaults() -> dict[str, Any]:
    """The smallest file, with every default."""
    smallest = Document.model_validate(
        {
            "listener": [{"address": ":8080", "tls": {"acme": {"domains": ["a.example"]}}}],
            "route": [{"pool": ANY}],
            "pool": {ANY: {"command": "true", "sticky": {}, "health": {"passive": {}}}},
            "admin": {"address": "127.0.0.1:9901", "tls": {"acme": {"domains": ["a.example"]}}},
            "events": {"webhook": {"url": "http://127.0.0.1"}, "redis": {"url": "redis://127.0.0.1"}},
        },
        context=Secrets(),
    )
    return effective(build(smallest, None, "/", "/run/lbproxy/lb.sock"))


def find(key: str) -> list[Entry]:
    """The entries that a key means: the whole name, with a pool's own name or NAME, or the end of one ("drain.tcp")."""
    parts = ("pool", ANY) if key == "pool" else _parts(key)
    whole = [entry for entry in entries() if _is_named(entry.path, parts)]
    return whole or [
        entry for entry in entries() if parts and len(parts) < len(entry.path) and entry.path[-len(parts) :] == parts
    ]


def below(table: Entry) -> list[Entry]:
    """The keys and tables right below a table."""
    return [entry for entry in entries() if entry.path[:-1] == table.path]


def not_supported(key: str) -> bool:
    """Whether the key, or a table that it stands in, is one of the contract that this version refuses."""
    parts = _parts(key)
    for refused in NOT_YET:
        path = tuple(ANY if part == "*" else part for part in refused.path if part != "*" or refused.path[0] == "pool")
        if refused.only is None and (_is_named(path, parts[: len(path)]) or (parts and path[-len(parts) :] == parts)):
            return True
    return False


def nearest_names(key: str) -> list[str]:
    """Names of entries that `key` may be a misspelling of, the best first."""
    parts = _parts(key)
    names = {entry.name_for(pool_in(key)): entry for entry in entries()}
    found = closest(".".join(parts), names)
    last = closest(parts[-1], {entry.path[-1] for entry in entries()} - {ANY}) if parts else None
    with_last = [name for name, entry in names.items() if entry.path[-1] == last]
    return list(dict.fromkeys([*([found] if found else []), *with_last]))[:3]


def pool_in(key: str | None) -> str:
    """The name of the pool that a key has, else NAME."""
    parts = _parts(key or "")
    return parts[1] if len(parts) > 1 and parts[0] == "pool" and parts[1] != "*" else ANY


def _parts(key: str) -> tuple[str, ...]:
    """("pool", "web", "drain") of "[pool.web.drain]"; numbers of list elements are left out."""
    parts = [part.strip(" \"'") for part in key.strip("[] ").split(".")]
    return tuple(part for part in parts if part and not part.isdigit())


def _is_named(path: tuple[str, ...], parts: Sequence[str]) -> bool:
    return len(path) == len(parts) and all(one in (ANY, part) for one, part in zip(path, parts, strict=True))


def _entries(table: type[Table], path: tuple[str, ...], given: Any) -> Iterator[Entry]:
    for name, info in table.model_fields.items():
        key = info.alias or name
        value = given.get(key) if isinstance(given, dict) else None
        below = table_in(info.annotation)
        if below is None:
            yield _entry((*path, key), name, value, table)
            continue
        inner: tuple[str, ...] = (*path, key)
        if below is PoolTable:
            inner, value = (*inner, ANY), (value or {}).get(ANY)
        if isinstance(value, list):
            value = value[0]
        yield Entry(inner, below.__doc__ or "", "a table", {}, None, None, None, below.applies, is_table=True)
        yield from _entries(below, inner, value)


def _entry(path: tuple[str, ...], name: str, default: Any, table: type[Table]) -> Entry:
    info = table.model_fields[name]
    facts, kind, many = facts_of(info), kind_of(info), container_of(info)
    json: dict[str, Any]
    if kind is None:
        choices = _choices(info.annotation)
        words, json = "one of " + ", ".join(map(value_text, choices)), {"enum": choices}
        example = next((choice for choice in choices if choice != default), None)
    else:
        words, json, example = kind.words, kind.json, kind.example
    if many is list:
        words, json = f"a list; each is {words}", {"type": "array", "items": json}
    elif many is dict:
        words, json = f"a table; each value is {words}", {"type": "object", "additionalProperties": json}
    return Entry(
        path,
        texts_below(table).get(name, ""),
        words,
        json,
        None if facts.unset is not None or info.is_required() else default,
        facts.unset if not info.is_required() else "none: it must be given",
        example if facts.example is None else facts.example,
        facts.applies or table.applies,
        is_required=info.is_required(),
    )


def _choices(annotation: Any) -> list[Any]:
    """The words of a `Literal[...] | None`."""
    found: list[Any] = []
    for part in get_args(annotation):
        found += [part] if isinstance(part, str | int) else _choices(part)
    return found
