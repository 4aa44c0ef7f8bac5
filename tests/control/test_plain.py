"""Values as plain JSON, and what files of other versions say."""

import json
from dataclasses import dataclass, field, replace

import pytest
from support.routing import ONE, TWO, routing

from control.fakes import generation
from lbproxy.address import Address
from lbproxy.control.generations import Kept
from lbproxy.control.plain import from_plain, plain
from lbproxy.model import PoolView
from lbproxy.settings import DrainSettings, HealthSettings, StickySettings


def test_a_generation_comes_back_as_it_was():
    made = generation(
        7,
        health=HealthSettings(path="/x", expect=((200, 204), (301, 301)), headers=(("A", "b"),)),
        drain=DrainSettings(websocket_s=0.5),
        targets=(Address("::1", 80), Address(path="/run/x")),
        env=(("A", "1"),),
    )
    kept = Kept(made, (3, 7))
    assert from_plain(Kept, json.loads(json.dumps(plain(kept)))) == kept


@dataclass(frozen=True)
class Inner:
    seconds: float
    name: str = "x"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    maybe: int | None = None
    many: tuple[str, ...] = field(default_factory=tuple)
    is_on: bool = False
    is_many: bool = field(init=False, default=False)

    def __post_init__(self):
        object.__setattr__(self, "is_many", len(self.many) > 1)


def test_what_a_value_knows_by_itself_is_not_written():
    value = Outer(Inner(1.0), many=("a", "b"))
    assert "is_many" not in plain(value)
    assert from_plain(Outer, plain(value)) == value


def test_unknown_fields_are_passed_over_and_missing_ones_get_their_default():
    value = {"inner": {"seconds": 1, "new": 5}, "newer": {}}
    assert from_plain(Outer, value) == Outer(Inner(1.0))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"inner": {}},
        {"inner": {"seconds": "1"}},
        {"inner": {"seconds": True}},
        {"inner": {"seconds": 1}, "many": "abc"},
        {"inner": {"seconds": 1}, "many": [1]},
        {"inner": {"seconds": 1}, "is_on": 1},
        {"inner": {"seconds": 1}, "maybe": "1"},
        {"inner": 5},
        None,
    ],
)
def test_nonsense_is_refused(value):
    with pytest.raises((ValueError, TypeError, KeyError)):
        from_plain(Outer, value)


def test_what_a_value_derives_from_its_fields_is_not_written_and_not_read():
    with routing() as bench:
        pool = replace(bench.pool(ONE, TWO), sticky=StickySettings())
    written = plain(pool)
    assert not {"is_keyed", "is_choosy"} & set(written)
    found = from_plain(PoolView, {**written, "is_keyed": False})
    assert found == pool
    assert found.is_keyed
