"""What of a request is hashed."""

import pytest

from lbproxy.model import PoolView
from lbproxy.settings import DrainSettings, PoolLimits, PoolTimeouts, StickySettings
from lbproxy.wire.forwarded import Trust
from lbproxy.wire.head import RequestHead, read_request
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.lines import Lines
from lbproxy.worker.leases.affinity import StickyKey, hash_key, key_of, still_fits

STRANGER = ClientFacts(b"192.0.2.7", False, b"http")
FRIEND = ClientFacts(b"127.0.0.1", True, b"http", trust=Trust(("127.0.0.0/8", "10.0.0.0/8")))
UNIX = ClientFacts(b"", False, b"http")


def request(*lines: bytes, target: bytes = b"/") -> RequestHead:
    head = b"\r\n".join((b"GET " + target + b" HTTP/1.1", b"Host: x", *lines, b"", b""))
    return read_request(head, Lines(), 100)


@pytest.mark.parametrize("source", [None, "client_ip"])
def test_the_address_of_a_client_is_its_own_unless_a_friend_says_otherwise(source: str | None) -> None:
    forwarded = request(b"X-Forwarded-For: 6.6.6.6, 198.51.100.1, 10.0.0.1", b"X-Forwarded-For: 10.0.0.2")
    assert hash_key(source, forwarded, STRANGER) == b"192.0.2.7"
    assert hash_key(source, forwarded, FRIEND) == b"198.51.100.1"
    assert hash_key(source, request(), FRIEND) == b"127.0.0.1"


def test_a_client_without_an_address_has_no_key() -> None:
    assert hash_key("client_ip", request(), UNIX) is None


def test_a_path_ends_where_the_query_begins() -> None:
    assert hash_key("path", request(target=b"/a/b?c=d"), STRANGER) == b"/a/b"
    assert hash_key("path", request(target=b"/a/b"), STRANGER) == b"/a/b"


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ((), None),
        ((b"X-Tenant: blue",), b"blue"),
        ((b"x-tenant:blue",), b"blue"),
        ((b"X-Tenant: blue", b"X-Tenant: red"), b"blue,red"),
        ((b"X-Tenant:",), None),
        ((b"X-Other: blue",), None),
    ],
)
def test_a_header_is_found_however_it_is_spelt(lines: tuple[bytes, ...], key: bytes | None) -> None:
    assert hash_key("header:X-Tenant", request(*lines), STRANGER) == key


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ((), None),
        ((b"Cookie: sid=42",), b"42"),
        ((b"Cookie: a=1; sid=42; b=2",), b"42"),
        ((b"Cookie: a=1;sid=42;b=2",), b"42"),
        ((b"Cookie: a=1", b"Cookie: sid=42"), b"42"),
        ((b"Cookie: sid=42=43",), b"42=43"),
        ((b"Cookie: SID=42",), None),
        ((b"Cookie: sid",), None),
        ((b"Cookie: xsid=42; sid2=43",), None),
    ],
)
def test_a_cookie_is_found_among_others(lines: tuple[bytes, ...], key: bytes | None) -> None:
    assert hash_key("cookie:sid", request(*lines), STRANGER) == key


def pool(balance: str, sticky: StickySettings | None) -> PoolView:
    return PoolView("web", 0, (), 1, balance, "path", PoolTimeouts(), PoolLimits(), DrainSettings(), 2, sticky=sticky)


def test_a_sticky_pool_wants_its_cookie_and_a_key_for_the_first_choice() -> None:
    asked = request(b"Cookie: a=1; lbproxy=t", target=b"/x")
    assert key_of(pool("hash", None), asked, STRANGER) == b"/x"
    assert key_of(pool("least_conn", StickySettings()), asked, STRANGER) == StickyKey(b"t")
    assert key_of(pool("hash", StickySettings()), asked, STRANGER) == StickyKey(b"t", b"/x")
    assert [pool(*of).is_keyed for of in (("hash", None), ("least_conn", None))] == [True, False]


def test_a_cookie_that_stands_there_twice_is_none() -> None:
    for lines in ((b"Cookie: lbproxy=t; lbproxy=t",), (b"Cookie: lbproxy=t", b"Cookie: a=1; lbproxy=u")):
        assert key_of(pool("least_conn", StickySettings()), request(*lines), STRANGER) == StickyKey()


def test_the_key_of_a_request_that_waited_over_a_table_fits_the_pool_as_it_is_now() -> None:
    waited = StickyKey(b"t", b"/x")
    assert still_fits(waited, pool("hash", StickySettings())) is waited
    assert still_fits(waited, pool("hash", None)) == b"/x"
    assert still_fits(b"/x", pool("hash", StickySettings())) == b"/x"
