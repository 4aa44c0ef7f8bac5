"""HTTP bodies under any bytes: nothing but Refused comes out, every cut reads alike, h11 reads the same payload, and
what is framed anew is the same message."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import h11

from fuzz.heads import pieces_of
from lbproxy.wire.body import Body, chunk, last_chunk, request_body, response_body
from lbproxy.wire.head import Lines, Refused, read_request, read_response

MAX_BYTES = 4096
MAX_TRAILER_BYTES = 256
MOST_KEPT = 1024

_CHUNKED_REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNKED_RESPONSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_REQUEST = read_request(_CHUNKED_REQUEST, Lines(), 9)
_RESPONSE = read_response(_CHUNKED_RESPONSE, Lines())
_KNOWN = read_request(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n", Lines(), 9)


@dataclass(slots=True)
class Reading:
    refused: bool = False
    done: bool = False
    payload: bytes = b""
    trailers: tuple[bytes, ...] = ()
    rest: bytes = b""


def chunked_request(data: bytes) -> None:
    pieces, raw = pieces_of(data)
    reading = _agreed(lambda: request_body(_REQUEST, MAX_BYTES, MAX_TRAILER_BYTES), pieces, {400, 413, 431})
    if not reading.refused:
        assert len(reading.payload) <= MAX_BYTES
        _h11_agrees(_CHUNKED_REQUEST + raw, h11.Connection(h11.SERVER, 1 << 20), reading)
        _framed_anew(reading)


def chunked_response(data: bytes) -> None:
    pieces, raw = pieces_of(data)
    reading = _agreed(lambda: response_body(_RESPONSE, b"GET", MAX_TRAILER_BYTES), pieces, {502})
    if not reading.refused:
        _h11_agrees(_CHUNKED_RESPONSE + raw, _asking(), reading)
        _framed_anew(reading)


def known_length(data: bytes) -> None:
    pieces, raw = pieces_of(data)
    reading = _agreed(lambda: request_body(_KNOWN, 0), pieces, {400})
    assert (reading.payload, reading.rest) == (raw[:100], raw[100:])
    assert reading.done == (len(raw) >= 100)


def _agreed(make: Callable[[], Body], pieces: list[bytes], refusals: set[int]) -> Reading:
    """The same from the whole, from the pieces, and, if it is short, byte by byte."""
    raw = b"".join(pieces)
    whole = _read(make(), [raw], refusals)
    assert _read(make(), pieces, refusals) == whole, "another cut, another reading"
    if len(raw) <= 300:
        assert _read(make(), [raw[at : at + 1] for at in range(len(raw))], refusals) == whole, "byte by byte differs"
    return whole


def _read(body: Body, pieces: list[bytes], refusals: set[int]) -> Reading:
    payload = b""
    try:
        for piece in pieces:
            payload += body.feed(piece)
            assert len(getattr(body, "_kept", b"")) <= MOST_KEPT, "more is kept than a line"
        done = body.done
    except Refused as refused:
        assert refused.status in refusals, refused  # noqa: PT017
        return Reading(refused=True)
    try:
        body.eof()
        assert done, "an end that was none"
    except Refused as refused:
        assert refused.status in refusals, refused  # noqa: PT017
        assert not done
    return Reading(False, done, payload, tuple(body.trailers), body.rest)


def _asking() -> h11.Connection:
    peer = h11.Connection(h11.CLIENT, 1 << 20)
    peer.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"a")]))
    peer.send(h11.EndOfMessage())
    return peer


def _h11_agrees(raw: bytes, peer: h11.Connection, reading: Reading) -> None:
    """What we accept h11 accepts, with the same payload and the same end."""
    payload = b""
    peer.receive_data(raw)
    problem: h11.RemoteProtocolError | None = None
    event: object = h11.NEED_DATA
    try:
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Data):
                payload += event.data
            elif isinstance(event, h11.EndOfMessage) or event is h11.NEED_DATA:
                break
    except h11.RemoteProtocolError as exc:
        problem = exc
    assert payload == reading.payload
    if problem is not None:
        # h11 wants framing fields among the trailers to be sensible; we drop them unread.
        assert reading.done, problem
        assert re.search(rb"(?i)\ncontent-length|\ntransfer-encoding", raw.partition(b"\r\n\r\n")[2]), problem
    elif isinstance(event, h11.EndOfMessage):
        assert reading.done
        assert peer.trailing_data[0] == reading.rest
        told = [(name, value) for name, value in event.headers]
        for line in reading.trailers:
            name, _, value = line.partition(b":")
            assert (name.lower(), value.strip(b" \t")) in told, "a trailer that was none"
    else:
        assert not reading.done


def _framed_anew(reading: Reading) -> None:
    if not reading.done:
        return
    again = request_body(_REQUEST, 0, 4 * MAX_TRAILER_BYTES)
    half = len(reading.payload) // 2
    sent = chunk(reading.payload[:half]) + chunk(reading.payload[half:]) + last_chunk(reading.trailers)
    assert again.feed(sent + reading.rest) == reading.payload
    assert again.done
    assert (tuple(again.trailers), again.rest) == (reading.trailers, reading.rest)
