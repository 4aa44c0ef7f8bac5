"""Whatever comes over a link is a message or LinkBroken, and every message survives the way."""

import json
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.link.codec import LinkBroken, added_in, decode, encode
from lbproxy.link.messages import (
    Applied,
    AskStats,
    Drained,
    LogFile,
    Publish,
    Stats,
    Stop,
    ToControl,
    ToWorker,
    Unreachable,
    Welcome,
)
from lbproxy.model import BackendId, BackendView, PoolView, RoutingTable
from lbproxy.settings import DrainSettings, ListenerSettings, PoolLimits, PoolTimeouts


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """As st.from_type(), but small, and with floats that a duration can have."""
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{field.name: values_of(hints[field.name]) for field in fields(hint) if field.init})
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    if origin is dict:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=2)
    if origin is UnionType:
        return st.one_of(*map(values_of, arguments))
    plain = {int: st.integers(), str: st.text(max_size=5), float: st.floats(allow_nan=False, allow_infinity=False)}
    return plain[hint] if hint in plain else st.from_type(hint)


messages = values_of(ToWorker | ToControl)
few = settings(max_examples=40)  # a table is a large thing to draw

trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
names = st.sampled_from([kind.__name__ for kind in get_args(ToWorker | ToControl)])

TABLE = RoutingTable(
    epoch=3,
    name="edge-1",
    listeners=(),
    routes=(),
    pools=(
        PoolView(
            name="web",
            cell=0,
            backends=(BackendView(BackendId("web", 1, 7), Address("127.0.0.1", 20000), 4),),
            newest=7,
            balance="least_conn",
            hash_key=None,
            timeouts=PoolTimeouts(),
            limits=PoolLimits(),
            drain=DrainSettings(),
            retry_attempts=2,
        ),
    ),
)


def decoded(data: bytes) -> Any:
    return decode(data, ToWorker | ToControl)


@few
@given(message=messages)
def test_every_message_arrives_as_it_was_sent(message: Any) -> None:
    assert decoded(encode(message)) == message


def test_a_table_arrives_with_its_types() -> None:
    arrived = decoded(encode(Publish(TABLE, (1, 2)))).table
    assert arrived == TABLE
    assert hash(arrived) == hash(TABLE)
    assert isinstance(arrived.pools[0].backends[0].id, BackendId)


@given(data=st.binary(max_size=64))
@example(data=b"")
@example(data=b"null")
@example(data=b"[]")
@example(data=b"[[]]")
@example(data=b'{"Stop": 1}')
@example(data=b'"Stop"')
@example(data=b"[" * 100_000)
@example(data=b'["Applied",' + b"9" * 5000 + b"]")
@example(data=b'["Stop",1' + b"0" * 400 + b"]")
@example(data=b'["Stop",1e999]')
@example(data=b'["Stop",NaN]')
@example(data=b'["Stop",-Infinity]')
@example(data=b'["Stop","\\ud800"]')
def test_bytes_that_are_no_message_break_the_link_and_nothing_else(data: bytes) -> None:
    with pytest.raises(LinkBroken):
        decoded(data)


@given(name=names, values=st.lists(trees, max_size=5))
def test_a_message_has_the_types_it_says_or_breaks_the_link(name: str, values: list[Any]) -> None:
    data = json.dumps([name, *values]).encode()
    try:
        message = decoded(data)
    except LinkBroken:
        return
    assert type(message).__name__ == name
    assert decoded(encode(message)) == message


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value in a JSON tree."""
    found = [path]
    if isinstance(value, list | dict):
        for key, inner in enumerate(value) if isinstance(value, list) else value.items():
            found += places(inner, (*path, key))
    return found


@few
@given(message=messages, draw=st.data(), wrong=trees)
def test_one_wrong_value_anywhere_gives_a_message_or_breaks_the_link(message: Any, draw: Any, wrong: Any) -> None:
    tree = json.loads(encode(message))
    path = draw.draw(st.sampled_from(places(tree)[1:]))
    target = tree
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = wrong
    try:
        arrived = decoded(json.dumps(tree).encode())
    except LinkBroken:
        return
    assert decoded(encode(arrived)) == arrived


@few
@given(message=messages, cut=st.integers(0, 1 << 16))
def test_a_message_that_was_cut_short_breaks_the_link(message: Any, cut: int) -> None:
    data = encode(message)
    with pytest.raises(LinkBroken):
        decoded(data[: cut % len(data)])


@pytest.mark.parametrize("message", [Stop(1.0), LogFile("a"), AskStats(1), Welcome(1, 2, 3, "json")])
def test_an_end_takes_only_the_messages_that_are_meant_for_it(message: Any) -> None:
    assert decode(encode(message), ToWorker) == message
    with pytest.raises(LinkBroken):
        decode(encode(message), ToControl)


@pytest.mark.parametrize(
    "data",
    [
        b'["Applied"]',
        b'["Applied",1,2]',
        b'["Applied","1"]',
        b'["Applied",1.0]',
        b'["Applied",true]',
        b'["Applied",null]',
        b'["Drained",["web.1@7"],1]',
        b'["Stats",1,2,3,{"upgrade":"many"}]',
        b'["Stats",1,2,3,[]]',
    ],
)
def test_values_of_another_type_are_not_bent_into_shape(data: bytes) -> None:
    with pytest.raises(LinkBroken):
        decoded(data)


def test_a_whole_number_is_good_enough_for_a_duration() -> None:
    stop = decoded(b'["Stop",3]')
    assert stop == Stop(3.0)
    assert type(stop.grace_s) is float


def test_what_is_complained_about_is_shown_but_not_at_any_length() -> None:
    with pytest.raises(LinkBroken) as caught:
        decoded(json.dumps(["Applied", "x" * 10_000]).encode())
    assert "xxx" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_listener_and_the_counts_of_a_worker_pass() -> None:
    stats = Stats(1, 2, 3, {"upgrade": 4})
    assert decoded(encode(stats)) == stats
    assert decoded(encode(Drained("web.1@7", 9))) == Drained("web.1@7", 9)
    assert decoded(encode(Unreachable("web.1@7", "refused"))) == Unreachable("web.1@7", "refused")
    assert decoded(encode(Applied(9))) == Applied(9)
    listener = ListenerSettings("public", Address(path="/run/ü.sock"), trusted_proxies=("::1/128",))
    assert encode(listener).isascii()


@dataclass(frozen=True)
class Place:
    name: str
    floor: int = field(default=0, metadata=added_in(2))


@dataclass(frozen=True)
class Visit:
    places: tuple[Place, ...]
    by: dict[str, Place]
    why: str = field(default="", metadata=added_in(3))


VISIT = Visit((Place("hall", 3),), {"me": Place("roof", 9)}, "a test")


def test_an_older_end_gets_no_field_that_it_does_not_know() -> None:
    assert encode(VISIT, 1) == b'["Visit",[["hall"]],{"me":["roof"]}]'
    assert encode(VISIT, 2) == b'["Visit",[["hall",3]],{"me":["roof",9]}]'
    assert encode(VISIT, 3) == b'["Visit",[["hall",3]],{"me":["roof",9]},"a test"]'


def test_what_an_older_end_leaves_out_has_its_default() -> None:
    assert decode(encode(VISIT, 1), Visit | Place) == Visit((Place("hall"),), {"me": Place("roof")})
    assert decode(encode(VISIT, 3), Visit | Place) == VISIT
    with pytest.raises(LinkBroken, match="Place has 2 fields, 3 came"):
        decode(b'["Visit",[["hall",1,2]],{}]', Visit | Place)
