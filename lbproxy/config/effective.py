"""The settings as a document again: every key with the value that it really has, as the file would write it.

The reverse of build.py: follows the tables of the schema and looks for each key in the settings. Secrets are hidden.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from lbproxy.config import values
from lbproxy.config.checks import FOR_COMMANDS
from lbproxy.config.pool_tables import PoolTable
from lbproxy.config.schema import Document
from lbproxy.config.table import Table
from lbproxy.config.tables import container_of, kind_of, table_in
from lbproxy.settings import Settings, TlsSettings

HIDDEN = "(hidden:as-in-the-file)"  # no blank in it: check takes what it has shown
_HIDDEN_URLS = {"webhook": "http://hidden.invalid/", "redis": "redis://hidden.invalid/"}

_ABSENT = object()
_SECRET_KEYS = ("token", "secret", "password")
_SECRET_PATHS = (("sticky", "key"), ("cluster", "key"), ("webhook", "url"), ("redis", "url"))
_SECRET_VARIABLE = re.compile(r"SECRET|PASS|TOKEN|KEY|CREDENTIAL|AUTH|DSN", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"(://[^/@\s:]*):[^/@\s]+@")


def effective(settings: Settings, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The whole file with every default. Paths are absolute.

    `document`: the file as TOML gave it. A secret that it names by env: or file: is shown so; keys that the settings
    do not have as such are taken from it.
    """
    found = _table(Document, settings)
    for pool in found.get("pool", {}).values():
        if "targets" in pool:
            for key in FOR_COMMANDS:
                pool.pop(key, None)
    shown: dict[str, Any] = _hidden(_completed(found, document or {}), document or {}, ())
    return shown


def _table(table: type[Table], source: object, prefix: str = "") -> dict[str, Any]:
    """`prefix`: of the fields in `source`, for a table that the settings have no class for (backoff, queue, retry)."""
    found: dict[str, Any] = {}
    for name, info in table.model_fields.items():
        below = table_in(info.annotation)
        value = _value(source, prefix + name)
        if below is PoolTable:
            written: Any = {pool.name: _table(below, pool) for pool in value}
        elif below is None:
            written = _written(value, info)
            if name == "max_surge" and getattr(source, "max_surge_is_percent", False):
                written = f"{value}%"
        elif value is _ABSENT:
            written = _table(below, source, f"{prefix}{name}_")
        elif isinstance(value, tuple):
            written = [_table(below, element) for element in value]
        else:
            written = _table(below, value) if value is not None else {}
        if written not in (_ABSENT, None, [], {}):
            found[info.alias or name] = written
    if isinstance(source, TlsSettings) and len(source.certs) == 1:  # the form for one pair, or made by `acme`
        del found["certs"]
    if isinstance(source, TlsSettings) and len(source.certs) == 1 and source.acme is None:
        found |= {"cert": source.certs[0].cert, "key": source.certs[0].key}
    if "name" in found and not _is_label(found["name"]):
        del found["name"]  # of a listener: its address, where that cannot be a name
    return found


def _value(source: object, name: str) -> Any:
    if name == "cert":  # not `certs`, which has a form of its own
        return _ABSENT
    for spelt in (name, f"{name}s", f"{name}_bytes", f"{name}_percent"):
        value = getattr(source, spelt, _ABSENT)
        if value is not _ABSENT and not callable(value):
            return value
    return _ABSENT


def _written(value: Any, info: FieldInfo) -> Any:
    if value is _ABSENT or value is None:
        return value
    kind, container = kind_of(info), container_of(info)
    if container is dict:
        return dict(value)
    if kind is None:
        return list(value) if isinstance(value, tuple) else value
    return [kind.written(element) for element in value] if container is list else kind.written(value)


def _completed(found: dict[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the document that are not in `found` are added."""
    for key, value in document.items():
        there = found.get(key)
        if there is None:
            found[key] = value
        elif isinstance(there, dict) and isinstance(value, Mapping):
            _completed(there, value)
    return found


def _hidden(value: Any, given: Any, path: tuple[str, ...]) -> Any:
    """`value` without secrets. `given`: the same place of the file."""
    if isinstance(value, dict):
        inside = given if isinstance(given, Mapping) else {}
        return {key: _hidden(below, inside.get(key), (*path, key)) for key, below in value.items()}
    if isinstance(value, list):
        elements = given if isinstance(given, list) and len(given) == len(value) else [None] * len(value)
        return [_hidden(below, one, path) for below, one in zip(value, elements, strict=True)]
    if path[-1] in _SECRET_KEYS or path[-2:] in _SECRET_PATHS:
        if isinstance(given, str) and given.startswith(("env:", "file:")):
            return given
        return _HIDDEN_URLS[path[-2]] if path[-1] == "url" else HIDDEN
    if not isinstance(value, str):
        return value
    if len(path) > 1 and path[-2] == "env" and _SECRET_VARIABLE.search(path[-1]):
        return HIDDEN
    return _PASSWORD_IN_URL.sub(r"\1:hidden@", value)


def _is_label(value: object) -> bool:
    try:
        values.label(value)
    except ValueError:
        return False
    return True
