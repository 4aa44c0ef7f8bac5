"""Heads that repeat: remembered once, made into the same bytes as if they were not, and never for somebody else."""

import pytest
from support.proxy import get

from lbproxy.wire.head import RequestHead, ResponseHead, read_request, read_response
from lbproxy.wire.head_cache import CACHED_HEADS, LONGEST_BYTES, CachedRequestHead, HeadCache
from lbproxy.wire.headers import ClientFacts, Framing, request_to_backend, response_to_client
from lbproxy.wire.lines import Lines

CLIENT = ClientFacts(b"127.0.0.1", False, b"http")
OTHER = ClientFacts(b"10.0.0.1", True, b"http")
UNIX = ClientFacts(b"", False, b"http")
SECURE = ClientFacts(b"10.0.0.9", False, b"https")
ID = b"0123456789abcdef"
NAMELESS = b"GET / HTTP/1.0\r\nA: b\r\n\r\n"
ODD = get(b"/%00X-Request-ID:", b"X: X-Forwarded-Proto: http", b"Y: X-Request-ID: ")
RAW = get(b"/a", b"User-Agent: x", b"X-Forwarded-For: 1.2.3.4")
ANSWER = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\n"


def request(raw: bytes = RAW) -> RequestHead:
    return read_request(raw, Lines(), 100)


def response(raw: bytes = ANSWER) -> ResponseHead:
    return read_response(raw, Lines())


def made(known: CachedRequestHead, client: ClientFacts) -> bytes:
    """As the express lane joins it."""
    ours = b"" if client.trusted else client.forwarded
    return b"".join((known.before, ours, known.between, ID, known.behind))


@pytest.mark.parametrize("client", [CLIENT, OTHER, UNIX, SECURE], ids=["http", "trusted", "unix", "https"])
@pytest.mark.parametrize("raw", [RAW, get(b"/", b"X-Request-ID: mine", b"Via: 1.0 x"), NAMELESS, ODD])
def test_what_goes_to_the_backend_is_what_would_be_made_anew(raw: bytes, client: ClientFacts) -> None:
    known = HeadCache().request(raw, request(raw), client)
    assert made(known, client) == request_to_backend(request(raw), client, ID)


def test_clients_with_an_address_each_share_what_is_remembered() -> None:
    head_cache = HeadCache()
    for number in range(300):
        client = ClientFacts(b"10.0.%d.%d" % divmod(number, 256), False, b"http")
        known = head_cache.request(RAW, request(), client)
        assert made(known, client) == request_to_backend(request(), client, ID)
    assert len(head_cache._requests) == 1


def test_what_goes_to_the_client_fits_who_asked() -> None:
    known = HeadCache().reply(ANSWER, Lines())
    old = request(get(b"/", minor=0))
    for asking in (request(), old):
        for framing in (Framing.LENGTH, Framing.NONE):
            for keep in (True, False):
                before, behind = known.for_client(asking, framing, keep)
                assert before + ID + behind == response_to_client(response(), asking, ID, framing, keep)


def test_all_connections_share_what_is_remembered() -> None:
    head_cache = HeadCache()
    assert head_cache.request(RAW, request(), CLIENT) is head_cache.request(bytes(bytearray(RAW)), request(), CLIENT)
    assert head_cache.reply(ANSWER, Lines()) is head_cache.reply(bytes(bytearray(ANSWER)), Lines())


def test_what_was_made_for_one_client_is_not_sent_for_another() -> None:
    head_cache = HeadCache()
    mine, its = head_cache.request(RAW, request(), CLIENT), head_cache.request(RAW, request(), OTHER)
    assert made(its, OTHER) == request_to_backend(request(), OTHER, ID)
    assert made(mine, CLIENT) == request_to_backend(request(), CLIENT, ID)
    third = ClientFacts(b"10.0.0.2", True, b"http")
    assert made(head_cache.request(RAW, request(), third), third) == request_to_backend(request(), third, ID)


def test_the_memory_is_bounded_and_keeps_no_long_head() -> None:
    head_cache = HeadCache()
    for number in range(3 * CACHED_HEADS):
        head_cache.request(b"%d" % number, request(), CLIENT)
        head_cache.reply(b"HTTP/1.1 200 %d\r\nA: b\r\n\r\n" % number, Lines())
        assert len(head_cache._requests) <= CACHED_HEADS
        assert len(head_cache._replies) <= CACHED_HEADS
    long = get(b"/", b"X: " + b"a" * LONGEST_BYTES)
    assert head_cache.request(long, request(long), CLIENT) is not head_cache.request(long, request(long), CLIENT)
