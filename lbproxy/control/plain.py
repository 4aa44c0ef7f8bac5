"""Frozen values as plain JSON and back, field by field and by name: what a file of an earlier version can still say.

A field that the file does not have gets its default; one that this version does not know is passed over.
"""

import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value) if field.init}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def from_plain(kind: type[T], value: Any) -> T:
    """Raises ValueError, TypeError or KeyError for what is no such value."""
    made: T = _read(kind, value)
    return made


def _read(hint: Any, value: Any) -> Any:
    if hint is Any:
        return value
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        given = {}
        for field in fields(hint):
            if not field.init:
                continue
            if field.name in value:
                given[field.name] = _read(hints[field.name], value[field.name])
            elif field.default is MISSING and field.default_factory is MISSING:
                raise KeyError(field.name)
        return hint(**given)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not types.NoneType]
        return None if value is None else _read(inner, value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {value!r:.80}")
        if arguments[-1] is Ellipsis:
            return tuple(_read(arguments[0], item) for item in value)
        return tuple(_read(argument, item) for argument, item in zip(arguments, value, strict=True))
    if origin is dict:
        return {str(key): _read(arguments[1], item) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise TypeError(f"expected {hint.__name__}, got {value!r:.80}")
    return value
