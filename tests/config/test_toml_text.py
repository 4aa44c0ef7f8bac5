import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.toml_text import key_text, toml_text, value_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_written_is_read_again(document: dict[str, Any]):
    assert tomllib.loads(toml_text(document)) == document


def test_tables_have_headers_and_keys_stand_before_them():
    document = {
        "listener": [{"limits": {"headers": 1}, "address": ":80"}, {"address": ":81"}],
        "pool": {"web": {"drain": {"tcp": "1s"}, "env": {}, "command": ["a", "b"]}},
    }
    assert (
        toml_text(document)
        == """\
[[listener]]
address = ":80"

[listener.limits]
headers = 1

[[listener]]
address = ":81"

[pool.web]
command = ["a", "b"]

[pool.web.drain]
tcp = "1s"

[pool.web.env]
"""
    )


def test_one_value_stands_on_one_line():
    assert value_text({"a b": [True, "x\n\x7f"]}) == '{ "a b" = [true, "x\\n\\u007f"] }'
    assert key_text("a-b_1") == "a-b_1"
