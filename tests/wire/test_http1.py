"""h11's second opinion: it agrees with what head.py accepts, and with nothing that somebody bent."""

from collections import Counter
from dataclasses import replace

import h11
import pytest
from hypothesis import given, settings
from support.each import each
from support.http_corpus import ACCEPTED_REQUESTS, ACCEPTED_RESPONSES, request, response
from support.http_heads import bend, bent, drawn, request_head, response_head

from lbproxy.wire.head import Lines, Refused, head_end, read_request, read_response
from lbproxy.wire.http1 import confirm_request, confirm_response

ASKED = (b"GET", b"HEAD", b"POST")
SMALL = Lines(max_lines=64)  # shared by all examples, so that lines are remembered, and forgotten, in between


@each(ACCEPTED_REQUESTS)
def test_h11_accepts_every_request_that_we_accept_with_the_same_meaning(raw):
    confirm_request(raw, read_request(raw, Lines(), 100))


@each(ACCEPTED_RESPONSES, [b"GET", b"HEAD", b"BREW"])
def test_h11_accepts_every_response_that_we_accept_with_the_same_meaning(raw, method):
    confirm_response(raw, read_response(raw, Lines()), method)


def test_a_head_longer_than_h11_likes_is_confirmed():
    raw = request(*(b"A%d: " % number + b"b" * 1000 for number in range(60)))
    confirm_request(raw, read_request(raw, Lines(), 100))


def test_a_version_in_a_field_is_left_alone():
    raw = request(b"Via-Like: GET / HTTP/1.5", start=b"GET /a HTTP/1.3")
    confirm_request(raw, read_request(raw, Lines(), 100))


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        request(b"Host: b"),
        request(b"Content-Length: +3"),
        request(b"Transfer-Encoding: gzip"),
        request(b"A : b"),
        request()[:-2],
        b"\x16\x03\x01",
    ],
)
def test_what_h11_refuses_is_refused(raw):
    with pytest.raises(Refused) as caught:
        confirm_request(raw, read_request(request(), Lines(), 100))
    assert caught.value.status == 400


@pytest.mark.parametrize("raw", [b"HTTP/1.1 abc\r\n\r\n", response(b"Content-Length: x"), response()[:-2]])
def test_what_h11_refuses_of_a_backend_is_refused(raw):
    with pytest.raises(Refused) as caught:
        confirm_response(raw, read_response(response(), Lines()), b"GET")
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "change",
    [
        {"method": b"HEAD"}, {"target": b"/b"}, {"host": b"b"}, {"minor": 0}, {"keep_alive": False}, {"length": 4},
        {"length": None}, {"chunked": True}, {"expects_continue": True},
    ],
)  # fmt: skip
def test_another_reading_of_a_request_is_not_confirmed(change):
    raw = request(b"Content-Length: 3", start=b"POST /a HTTP/1.1")
    with pytest.raises(Refused) as caught:
        confirm_request(raw, replace(read_request(raw, Lines(), 100), **change))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "change", [{"status": 201}, {"reason": b"Ok"}, {"keep_alive": False}, {"length": 4}, {"chunked": True}]
)
def test_another_reading_of_a_response_is_not_confirmed(change):
    raw = response(b"Content-Length: 3")
    with pytest.raises(Refused) as caught:
        confirm_response(raw, replace(read_response(raw, Lines()), **change), b"GET")
    assert caught.value.status == 502


@pytest.mark.parametrize("start", [b"CONNECT a:1 HTTP/1.1", b"GET /other HTTP/1.1"])
def test_what_makes_h11_pause_hangs_nobody(start):
    raw = request(b"Connection: upgrade", b"Upgrade: x", start=start)
    with pytest.raises(Refused):
        confirm_request(raw, read_request(request(), Lines(), 100))


# What is not passed on, in either direction, and what Connection cannot name (HTTP.md), said once more.
REMOVED = frozenset(
    b"connection keep-alive proxy-connection te trailer upgrade proxy proxy-authenticate proxy-authorization "
    b"proxy-authentication-info http2-settings content-length transfer-encoding via x-request-id".split()
)
ASIDE = frozenset(b"host expect x-real-ip forwarded x-forwarded-for x-forwarded-proto x-forwarded-host".split())


def passed_on(event: h11.Request | h11.Response | h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
    """By what h11 has read."""
    fields = list(event.headers)
    options = b",".join(value.lower() for name, value in fields if name == b"connection").split(b",")
    named = {option.strip() for option in options} - ASIDE - {b"close"}
    fields = [pair for pair in fields if pair[0] not in REMOVED | named]
    if isinstance(event, h11.Request):
        dashed = [(name.replace(b"_", b"-"), name, value) for name, value in fields]
        fields = [
            (name, value)
            for like, name, value in dashed
            if like not in REMOVED | ASIDE and not like.startswith(b"x-forwarded-")
        ]
    return fields


def h11_reads(raw: bytes, method: bytes = b"") -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    """A request; with a method, an answer to it."""
    peer = h11.Connection(h11.CLIENT if method else h11.SERVER)
    if method:
        headers = [(b"Host", b"a"), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        peer.send(h11.Request(method=method, target=b"/", headers=headers))
        peer.send(h11.EndOfMessage())
    peer.receive_data(raw)
    return peer.next_event()


def split(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    parts = (line.partition(b":") for line in lines)
    return [(name.lower(), value.strip(b" \t")) for name, _, value in parts]


def request_holds(raw: bytes) -> str:
    """Whatever read_request accepts, h11 accepts with the same meaning. A refused head says so and nothing else."""
    try:
        end = head_end(raw, 0, 16_384)
        if end < 0:
            return "more"
        head = read_request(raw[:end], SMALL, 100)
    except Refused as refused:
        assert refused.status in (400, 417, 431, 501, 505)  # noqa: PT017
        return "refused"
    assert head == read_request(raw[:end], Lines(), 100)
    confirm_request(raw[:end], head)
    event = h11_reads(raw[:end].removeprefix(b"\r\n"))
    assert isinstance(event, h11.Request)
    assert split(head.lines) == passed_on(event)
    return "read"


def response_holds(raw: bytes, method: bytes) -> str:
    try:
        end = raw.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in raw else len(raw)
        head = read_response(raw[:end], SMALL)
    except Refused as refused:
        assert refused.status == 502  # noqa: PT017
        return "refused"
    assert head == read_response(raw[:end], Lines())
    confirm_response(raw[:end], head, method)
    event = h11_reads(raw[:end], method)
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    assert split(head.lines) == passed_on(event)
    return "read"


def at_least(quick: int, long: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "examples", [quick, pytest.param(long, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
    )


@pytest.mark.long
@at_least(8_000, 200_000)
def test_two_readers_agree_on_every_request_that_is_forwarded(examples):
    seen = Counter()

    @settings(max_examples=examples)
    @given(bent(request_head))
    def look(raw: bytes) -> None:
        seen[request_holds(raw)] += 1

    look()
    assert min(seen["read"], seen["refused"]) > examples / 8, seen


@pytest.mark.long
@at_least(5_000, 200_000)
def test_two_readers_agree_on_every_response_that_is_forwarded(examples):
    seen = Counter()

    @settings(max_examples=examples)
    @given(drawn(lambda choices: (choices.one_of(ASKED), bend(choices, response_head(choices)))))
    def look(answer: tuple[bytes, bytes]) -> None:
        method, raw = answer
        seen[response_holds(raw, method)] += 1

    look()
    assert min(seen["read"], seen["refused"]) > examples / 8, seen
