"""The tokens of an Upgrade field: which are read, which pass."""

import pytest

from lbproxy.wire.upgrades import is_one_of, is_protocol, never_passes, offered, passed


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ([b"websocket"], (b"websocket",)),
        ([b"Foo/2, bar"], (b"Foo/2", b"bar")),
        ([b"foo,", b"\tbar ,, baz"], (b"foo", b"bar", b"baz")),
        ([b""], ()),
        ([b"foo bar"], ()),
        ([b"foo/1/2"], ()),
        ([b"foo/"], ()),
        ([b"foo", b'"bar"'], ()),
        ([b"foo, h2c"], ()),
        ([b"foo, H2C"], ()),
        ([b"HTTP/2.0, SHTTP/1.3, IRC/6.9"], ()),
        ([b"TLS/1.0"], ()),
    ],
)
def test_an_offer_is_read_whole_or_not_at_all(values: list[bytes], tokens: tuple[bytes, ...]) -> None:
    assert offered(values) == tokens


def test_only_listed_protocols_pass_in_any_case_and_as_they_are_spelt() -> None:
    offers = (b"WebSocket", b"Foo/2", b"bar", b"foo")
    assert passed(offers, ("websocket", "foo/2"), may_be_websocket=True) == (b"websocket", b"Foo/2")
    assert passed(offers, ("websocket", "foo/2"), may_be_websocket=False) == (b"Foo/2",)
    assert passed(offers, (), may_be_websocket=True) == ()


def test_a_101_must_name_what_was_asked_for() -> None:
    assert is_one_of(b"foo/2", (b"bar", b"Foo/2"))
    assert not is_one_of(b"foo", (b"bar", b"Foo/2"))
    assert not is_one_of(b"", (b"bar",))
    assert not is_one_of(b"foo", ())


def test_http_never_passes_behind_an_upgrade() -> None:
    assert all(map(never_passes, (b"h2c", b"H2C", b"h2", b"HTTP/2.0", b"http", b"TLS/1.2")))
    assert not any(map(never_passes, (b"websocket", b"h2cx", b"tcp", b"httpx/1")))
    assert is_protocol(b"a/1.0")
    assert not is_protocol(b"a b")
