"""Bytes of a message and back: JSON, checked against the dataclasses of messages.py, field by field.

Not pickle: what comes from a worker is data, never code, also when the worker has lost its mind.

The ends of a link may differ by a version (see messages.py): a value whose last fields are missing gets their defaults.
"""

import json
import types
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from math import isfinite
from typing import Any, Union, get_args, get_origin, get_type_hints

from lbproxy.errors import LbproxyError

LINK_VERSION = 1  # see messages.py
_SINCE = "link_version"


class LinkBroken(LbproxyError):
    """The other end sent what no message is, or is gone in the middle of one."""


def added_in(version: int) -> dict[str, int]:
    """The metadata of a field that LINK_VERSION `version` added."""
    return {_SINCE: version}


def encode(message: Any, version: int = LINK_VERSION) -> bytes:
    """A dataclass is sent as the list of its fields, the message itself with its name in front. `version`: of the
    receiver."""
    return json.dumps([type(message).__name__, *_plain(message, version)], separators=(",", ":")).encode()


def decode(data: bytes, union: Any) -> Any:
    """`union` is the union of the messages that may arrive here. Raises LinkBroken."""
    try:
        name, *values = json.loads(data, parse_constant=_no_number)
        kind = {choice.__name__: choice for choice in get_args(union)}[name]
        return _reader(kind)(values)
    except LinkBroken:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise LinkBroken(f"not a message: {data[:80]!r}") from exc


_SCALARS = frozenset((str, int, float, bool, types.NoneType))  # not their subclasses: an Enum is written as its value


def _plain(value: Any, version: int) -> Any:
    if type(value) in _SCALARS:
        return value
    if is_dataclass(value):
        return [_plain(getattr(value, name), version) for name in _sent(value.__class__, version)]
    if isinstance(value, tuple | list):
        return [_plain(item, version) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, version) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    return value


@cache
def _sent(kind: type, version: int) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.init and field.metadata.get(_SINCE, 0) <= version)


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """The function that makes a value of type `hint` from JSON, built once per type."""
    if is_dataclass(hint) and isinstance(hint, type):
        return _dataclass_reader(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not types.NoneType]
        read_inner = _reader(inner)
        return lambda value: None if value is None else read_inner(value)
    if origin is tuple and arguments[-1] is Ellipsis:
        read_item = _reader(arguments[0])
        return lambda value: tuple(read_item(item) for item in _checked(value, list))
    if origin is tuple:
        readers = [_reader(argument) for argument in arguments]
        return lambda value: tuple(read(item) for read, item in zip(readers, _checked(value, list), strict=True))
    if origin is dict:
        read_value = _reader(arguments[1])
        return lambda value: {_checked(key, str): read_value(item) for key, item in _checked(value, dict).items()}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if hint is float:
        return _finite
    return lambda value: _checked(value, hint)


def _dataclass_reader(kind: type) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    readers = [_reader(hints[field.name]) for field in fields(kind) if field.init]
    least = sum(not _has_default(field) for field in fields(kind) if field.init)

    def read(value: Any) -> Any:
        count = len(_checked(value, list))
        if not least <= count <= len(readers):
            raise LinkBroken(f"{kind.__name__} has {len(readers)} fields, {count} came")
        return kind(*(read(item) for read, item in zip(readers, value, strict=False)))

    return read


def _has_default(field: "Field[Any]") -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _no_number(name: str) -> Any:
    raise LinkBroken(f"{name} is not a number")


def _finite(value: Any) -> float:
    number = float(_checked(value, (int, float)))
    return number if isfinite(number) else _no_number(repr(number))


def _checked(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise LinkBroken(f"expected {kind}, got {value!r:.80}")
    return value
