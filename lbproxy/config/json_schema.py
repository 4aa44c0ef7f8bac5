"""The JSON Schema of the file, for editors: they complete keys, show what a key does, and mark mistakes.

Made from reference.py, so that `lbproxy explain` and an editor say the same.
"""

from typing import Any

from lbproxy.config.reference import ANY, LISTED, Entry, entries


def json_schema() -> dict[str, Any]:
    root: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",  # what editors know best
        "title": "The configuration of lbproxy",
        **_object(""),
        "required": ["listener", "pool"],
    }
    for entry in entries():
        _put(root, entry)
    return root


def _put(root: dict[str, Any], entry: Entry) -> None:
    node = root
    for above in entry.path[:-1]:
        node = _below(node, above)
    key = entry.path[-1]
    if not entry.is_table:
        node["properties"][key] = _key(entry)
        if entry.is_required:
            node.setdefault("required", []).append(key)
    elif key == ANY:
        node["properties"][entry.path[-2]] = {
            "type": "object",
            "description": entry.about,
            "minProperties": 1,
            "additionalProperties": _object(entry.about),
        }
    elif entry.path[0] in LISTED and len(entry.path) == 1:
        node["properties"][key] = {"type": "array", "description": entry.about, "items": _object(entry.about)}
    else:
        node["properties"][key] = _object(entry.about)


def _below(node: dict[str, Any], key: str) -> dict[str, Any]:
    """The schema of the table at `key`; of each element and each pool."""
    if key == ANY:
        return node
    below: dict[str, Any] = node["properties"].get(key, node)
    if below.get("type") == "array":
        below = below["items"]
    elif isinstance(below.get("additionalProperties"), dict):
        below = below["additionalProperties"]
    return below


def _object(about: str) -> dict[str, Any]:
    return {
        "type": "object",
        **({"description": about} if about else {}),
        "additionalProperties": False,
        "properties": {},
    }


def _key(entry: Entry) -> dict[str, Any]:
    default = f"Default: {entry.default_text}."
    known = {} if entry.default is None else {"default": entry.default}
    applies = f"Takes effect {entry.applies}."
    about = f"{entry.about}\n\n{entry.kind[:1].upper()}{entry.kind[1:]}. {default}\n\n{applies}"
    return {**entry.json, "description": about, **known, "examples": [entry.example]}
