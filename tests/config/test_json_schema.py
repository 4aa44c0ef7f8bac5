import json
import re
import tomllib
from pathlib import Path
from typing import Any

from lbproxy.config.json_schema import json_schema
from lbproxy.config.reference import defaults, entries
from lbproxy.config.toml_text import toml_text

ROOT = Path(__file__).parents[2]


def misfits(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """What in a value does not fit; knows the words of JSON Schema that lbproxy uses, and no others."""
    known = {"type", "enum", "const", "pattern", "minimum", "maximum", "minLength", "minItems", "minProperties"}
    known |= {"items", "properties", "additionalProperties", "required", "oneOf", "anyOf"}
    assert set(schema) <= known | {"description", "default", "examples", "title", "$schema"}
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if "oneOf" in schema:
        return [] if sum(not misfits(one, value) for one in schema["oneOf"]) == 1 else [f"{path}: {value!r}"]
    if "type" in schema and not (isinstance(value, types[schema["type"]]) and type(value) in types.values()):
        return [f"{path}: {value!r} is no {schema['type']}"]
    found = []
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        found.append(f"{path}: {value!r} is none of the words")
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(f"{path}: {value!r} does not match")
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{path}: {value!r} is out of range")
    if isinstance(value, list):
        found += [
            line for number, one in enumerate(value) for line in misfits(schema["items"], one, f"{path}.{number}")
        ]
    if isinstance(value, dict):
        found += [f"{path}.{key} is missing" for key in schema.get("required", ()) if key not in value]
        for key, one in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            found += misfits(inner, one, f"{path}.{key}") if isinstance(inner, dict) else [f"{path}.{key} is unknown"]
    return found


def test_it_is_json():
    assert json.loads(json.dumps(json_schema())) == json_schema()


def test_every_key_is_in_it_and_says_the_same_as_explain():
    text = json.dumps(json_schema())
    for entry in entries():
        assert json.dumps(entry.about)[1:-1] in text


def test_what_we_ship_and_every_default_fit():
    for path in (ROOT / "configs").glob("*.toml"):
        assert misfits(json_schema(), tomllib.loads(path.read_text())) == [], path
    assert misfits(json_schema(), tomllib.loads(toml_text(defaults()))) == []


def test_every_example_fits():
    for entry in entries():
        if not entry.is_table:
            assert misfits(entry.json, entry.example) == [], entry.name_for()


def test_mistakes_do_not_fit():
    document = {
        "listener": [{"adress": ":80"}],
        "pool": {"web": {"size": 0, "command": [], "drain": {"tcp": 5}, "health": {"path": "x"}, "balance": "best"}},
    }
    found = misfits(json_schema(), document)
    for part in ("adress is unknown", "address is missing", "size", "tcp", "path", "balance"):
        assert any(part in line for line in found), (part, found)
