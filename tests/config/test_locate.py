"""The locator is held against tomllib: it must know every path that tomllib knows, and where it was written."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.locate import locate
from lbproxy.config.problems import Path

DOCUMENT = """\
# [not.a.table]
title = "x"   # = 1
[proxy]
  name = 'a'
[[listener]]
address = ":1"
limits = { headers = 1, "body_bytes" = "0", a.b = [1, {c = 2}] }
[[listener]]
address = \"\"\"
[no.table]
no = "key" \\\"\"\" \"\"\"\"\"
trusted = [ # one ]
  "10.0.0.0/8",  '''
]'''''
  , 1979-05-27 07:32:00,
]
[pool.web.health]
path = "/"
[pool.web]
env."A.B" = 1
  [listener.timeouts]
  idle = "1s"
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("title",), (2, 1)),
        (("proxy",), (3, 2)),
        (("proxy", "name"), (4, 3)),
        (("listener",), (5, 3)),
        (("listener", 0), (5, 1)),
        (("listener", 0, "address"), (6, 1)),
        (("listener", 0, "limits", "headers"), (7, 12)),
        (("listener", 0, "limits", "body_bytes"), (7, 25)),
        (("listener", 0, "limits", "a", "b"), (7, 47)),
        (("listener", 0, "limits", "a", "b", 1, "c"), (7, 56)),
        (("listener", 1), (8, 1)),
        (("listener", 1, "address"), (9, 1)),
        (("listener", 1, "trusted", 0), (13, 3)),
        (("listener", 1, "trusted", 1), (13, 18)),
        (("listener", 1, "trusted", 2), (15, 5)),
        (("pool",), (17, 2)),
        (("pool", "web"), (17, 7)),
        (("pool", "web", "env"), (20, 1)),
        (("pool", "web", "env", "A.B"), (20, 5)),
        (("listener", 1, "timeouts", "idle"), (22, 3)),
    ],
)
def test_a_key_is_found_where_it_is_written(path: Path, place: tuple[int, int]):
    tomllib.loads(DOCUMENT)
    assert locate(DOCUMENT).key(path) == place


def test_a_table_is_its_header():
    places = locate(DOCUMENT)
    assert places.table(("pool", "web")) == (19, 1)
    assert places.table(("listener", 1)) == (8, 1)
    assert places.table(("listener", 1, "timeouts")) == (21, 3)


def test_a_table_without_a_header_is_its_key():
    assert locate(DOCUMENT).table(("listener", 0, "limits")) == (7, 1)
    assert locate("[a.b.c]").table(("a", "b")) == (1, 4)


def test_what_is_not_written_is_where_it_would_be():
    places = locate(DOCUMENT)
    assert places.key(("proxy", "name", "more")) == (4, 3)
    assert places.key(()) == places.table(()) == (1, 1)


def test_lines_that_end_in_cr_lf_count_alike():
    assert locate("a = 1\r\n# x\r\n[b]\r\nc = [\r\n1,\r\n]\r\n").key(("b", "c", 0)) == (5, 1)


def test_columns_count_characters():
    assert locate('a = "ü" # \u2028\nb = {"ü" = 1, c = 2}').key(("b", "c")) == (2, 15)


# --- against tomllib: statements are added while the document stays valid; every scalar carries a number of its own

# Few names, so that headers meet the tables and arrays that others began.
KEYS = st.sampled_from(["a"] * 6 + ["b"] * 3 + ['"a"', "'b'", "c-1", '"x.y"', '"\\u00fc\\"]"', "'[[a]]'", '"=#"', '""'])
SPACES = st.sampled_from(["", " ", "\t"])
GAPS = st.sampled_from(["", " ", "\n", " # ] } , = [\n", "\r\n\n"])
FORMS = [
    "{0}",
    "-{0}",
    "{0}.5e1",
    '"{0}"',
    '"{0} [x] # a = 1 \\" \\\\"',
    "'{0} \"'",
    '"""{0}\n[a]\nb = 1\n""\\""""',
    '"""{0} \\\\"""',
    '"""{0}"""""',
    "'''{0}\n[[a]] ''\nc = '''''",
    "1979-05-27 07:32:00.{0}",
    "07:32:00.{0}",
    "1979-05-27T07:32:00.{0}-07:00",
]


class Numbers:
    """Hands out numbers that stand in the text once."""

    def __init__(self) -> None:
        self.last = 100_000

    def next(self) -> str:
        self.last += 1
        return str(self.last)


def keys(draw: st.DrawFn) -> str:
    parts = draw(st.lists(KEYS, min_size=1, max_size=3))
    return f"{draw(SPACES)}.{draw(SPACES)}".join(parts)


def value(draw: st.DrawFn, numbers: Numbers, depth: int = 0) -> str:
    kind = draw(st.integers(0, 9)) if depth < 3 else 9
    if kind > 3:
        return draw(st.sampled_from(FORMS)).format(numbers.next())
    inner = range(draw(st.integers(0, 3)))
    if kind > 1:
        elements = [f"{draw(GAPS)}{value(draw, numbers, depth + 1)}{draw(GAPS)}" for _ in inner]
        trailing = draw(st.sampled_from(["", ","])) if elements else ""
        return f"[{','.join(elements)}{trailing}{draw(GAPS)}]"
    pairs = [f"{keys(draw)}{draw(SPACES)}={draw(SPACES)}{value(draw, numbers, depth + 1)}" for _ in inner]
    return "{" + draw(SPACES) + f"{draw(SPACES)},{draw(SPACES)}".join(pairs) + draw(SPACES) + "}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    numbers = Numbers()
    text = ""
    for _ in range(draw(st.integers(0, 10))):
        kind = draw(st.integers(0, 4))
        name = keys(draw)
        if kind == 0:
            statement = f"[{draw(SPACES)}{name}{draw(SPACES)}]"
        elif kind == 1:
            statement = f"[[{draw(SPACES)}{name}{draw(SPACES)}]]"
        else:
            statement = f"{name}{draw(SPACES)}={draw(SPACES)}{value(draw, numbers)}"
        longer = f"{text}{draw(SPACES)}{statement}{draw(SPACES)}{draw(st.sampled_from(['', '# [a]']))}\n{draw(GAPS)}"
        try:
            tomllib.loads(longer)
        except tomllib.TOMLDecodeError:
            continue
        text = longer
    return text


def walk(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, below in inner:
        yield (*path, name), below
        yield from walk(below, (*path, name))


@given(documents())
def test_every_path_that_tomllib_knows_is_found_where_it_is_written(text: str):
    places = locate(text)
    # tomllib reads CR LF in strings as LF; positions are those of the original
    nodes = dict(walk(tomllib.loads(text)))
    assert set(places.keys) == set(nodes)
    markers = [match.start() for match in re.finditer(r"1\d{5}(?!\d)", text)]
    for path, node in nodes.items():
        at = places.keys[path]
        if isinstance(path[-1], str):
            lexeme = re.compile(r"""[\w-]+|"(?:\\.|[^"\\])*"|'[^']*'""", re.ASCII).match(text, at)
            assert lexeme is not None
            assert tomllib.loads(f"{lexeme[0]} = 1") == {path[-1]: 1}
        if not isinstance(node, dict | list):
            own = re.search(r"1\d{5}(?!\d)", re.sub(r"^1979-05-27.|07:32:00.?", "", str(node)).replace(".", ""))
            mine = [marker for marker in markers if own is None or text.startswith(own[0], marker)]
            before = [marker for marker in markers if marker < mine[0]]
            if own is not None:
                assert before[-1:] < [at] <= [mine[0]]
    for path, at in places.headers.items():
        assert text[at] == "["
        assert not text[text.rfind("\n", 0, at) + 1 : at].strip()
        assert path in nodes


def test_an_escaped_quote_before_the_end_of_a_long_string_is_read_over():
    """Python 3.11.2's possessive quantifiers do not."""
    text = 'a = """1\n""\\""""\nb = 2\n'
    assert locate(text).key(("b",)) == (3, 1)
