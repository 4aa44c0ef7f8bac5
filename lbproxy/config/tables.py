"""The tables of the schema as a tree: which keys a table has, which table stands below a key.

Knows the classes of schema.py. Reads no document.
"""

import ast
import inspect
from functools import cache
from itertools import pairwise
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from lbproxy.config.kinds import Facts, Kind
from lbproxy.config.pool_tables import PoolTable
from lbproxy.config.problems import Path
from lbproxy.config.schema import Document
from lbproxy.config.table import Table


def keys(table: type[Table]) -> list[str]:
    """The keys as the file writes them."""
    return [info.alias or name for name, info in table.model_fields.items()]


def tables(table: type[Table], path: str = "") -> list[tuple[str, type[Table]]]:
    """Every table that a file can have, with its name; `*` stands for the name of a pool."""
    found = [(path, table)]
    for name, info in table.model_fields.items():
        inner = table_in(info.annotation)
        if inner is not None:
            key = info.alias or name
            below = f"{path}.{key}" if path else key
            found += tables(inner, f"{below}.*" if inner is PoolTable else below)
    return found


def table_at(path: Path) -> type[Table]:
    """The table that a path leads to. Elements and pools have the table of their list or dictionary."""
    table: type[Table] = Document
    parts = list(path)
    while parts:
        part = parts.pop(0)
        if part == "pool" and table is Document:
            del parts[:1]  # the name of the pool, which may be that of a key
        for name, info in table.model_fields.items():
            if part == (info.alias or name):
                table = table_in(info.annotation) or table
                break
    return table


@cache
def texts_below(table: type[Table]) -> dict[str, str]:
    """The text below each field, read from the source: a start of lbproxy, which needs none, does not pay for them."""
    (definition,) = ast.parse(inspect.getsource(table)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def table_in(annotation: Any) -> type[Table] | None:
    """`PoolTable` of `dict[str, PoolTable] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    return next((table for table in map(table_in, get_args(annotation)) if table is not None), None)


def kind_of(info: FieldInfo) -> Kind | None:
    """The kind of a key's values; None for one of a few words, and for a table."""
    return _kind_in([*info.metadata, info.annotation])


def container_of(info: FieldInfo) -> type | None:
    """list or dict, where a key has several values of its kind."""
    parts = (info.annotation, *get_args(info.annotation))
    return next((get_origin(part) for part in parts if get_origin(part) in (list, dict)), None)


def facts_of(info: FieldInfo) -> Facts:
    return next((one for one in info.metadata if isinstance(one, Facts)), Facts())


def _kind_in(parts: list[Any]) -> Kind | None:
    for part in parts:
        inner = [*getattr(part, "__metadata__", ()), *get_args(part)]
        found = part if isinstance(part, Kind) else _kind_in(inner)
        if found is not None:
            return found
    return None
