"""Heads that repeat: remembered once, made into the same bytes as if they were not, and never for somebody else."""

from support.proxy import get

from lbproxy.wire.head import RequestHead, ResponseHead, read_request, read_response
from lbproxy.wire.head_cache import LONGEST_BYTES, REMEMBERED, Repeats
from lbproxy.wire.headers import ClientFacts, Framing, request_to_backend, response_to_client
from lbproxy.wire.lines import Lines

CLIENT = ClientFacts(b"127.0.0.1", False, b"http")
OTHER = ClientFacts(b"10.0.0.1", True, b"http")
ID = b"0123456789abcdef"
RAW = get(b"/a", b"User-Agent: x", b"X-Forwarded-For: 1.2.3.4")
ANSWER = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\n"


def request(raw: bytes = RAW) -> RequestHead:
    return read_request(raw, Lines(), 100)


def response(raw: bytes = ANSWER) -> ResponseHead:
    return read_response(raw, Lines())


def test_what_goes_to_the_backend_is_what_would_be_made_anew() -> None:
    known = Repeats().request(RAW, request(), CLIENT)
    assert known.before + ID + known.behind == request_to_backend(request(), CLIENT, ID)


def test_what_goes_to_the_client_fits_who_asked() -> None:
    known = Repeats().reply(ANSWER, Lines())
    old = request(get(b"/", minor=0))
    for asking in (request(), old):
        for framing in (Framing.LENGTH, Framing.NONE):
            for keep in (True, False):
                before, behind = known.for_client(asking, framing, keep)
                assert before + ID + behind == response_to_client(response(), asking, ID, framing, keep)


def test_all_connections_share_what_is_remembered() -> None:
    repeats = Repeats()
    assert repeats.request(RAW, request(), CLIENT) is repeats.request(bytes(bytearray(RAW)), request(), CLIENT)
    assert repeats.reply(ANSWER, Lines()) is repeats.reply(bytes(bytearray(ANSWER)), Lines())


def test_what_was_made_for_one_client_is_not_sent_for_another() -> None:
    repeats = Repeats()
    mine, its = repeats.request(RAW, request(), CLIENT), repeats.request(RAW, request(), OTHER)
    assert its.before + ID + its.behind == request_to_backend(request(), OTHER, ID)
    assert (mine.before, mine.behind) != (its.before, its.behind)


def test_the_memory_is_bounded_and_keeps_no_long_head() -> None:
    repeats = Repeats()
    for number in range(3 * REMEMBERED):
        repeats.request(b"%d" % number, request(), CLIENT)
        repeats.reply(b"HTTP/1.1 200 %d\r\nA: b\r\n\r\n" % number, Lines())
        assert len(repeats._requests) <= REMEMBERED
        assert len(repeats._replies) <= REMEMBERED
    long = get(b"/", b"X: " + b"a" * LONGEST_BYTES)
    assert repeats.request(long, request(long), CLIENT) is not repeats.request(long, request(long), CLIENT)
