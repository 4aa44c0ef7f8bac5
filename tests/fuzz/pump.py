"""Time: eight times the input may take eight times as long, not sixty-four times.

An input is a beginning, a piece that is repeated, and an end; every parser gets it in two sizes.
"""

from collections.abc import Callable
from contextlib import suppress
from time import thread_time

from lbproxy.control.api_server import Declined, path_and_query, values_of
from lbproxy.link.codec import LinkBroken, decode
from lbproxy.link.messages import ToControl
from lbproxy.wire.body import request_body
from lbproxy.wire.forwarded import Trust, hops_of
from lbproxy.wire.head import Lines, Refused, head_end, read_request, read_response
from lbproxy.wire.sse import EventTracker
from lbproxy.wire.websocket import Boundary, FrameTracker

FEW, MANY = 512, 4096
TOO_STEEP = 3  # times as steep as a straight line
WORTH_A_LOOK_S = 0.02
_CHUNKED = read_request(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Lines(), 9)


def _head(raw: bytes) -> None:
    head_end(raw, 0, 1 << 30)
    read_request(raw, Lines(), 1 << 30)


def _frames(raw: bytes) -> None:
    FrameTracker().feed(raw)
    frames = FrameTracker()
    frames.feed_until(raw, Boundary.CLOSE)


def _events(raw: bytes) -> None:
    events = EventTracker()
    events.last_boundary(raw)
    events.feed(raw)


PARSERS: list[Callable[[bytes], object]] = [
    _head,
    lambda raw: read_response(raw, Lines()),
    lambda raw: request_body(_CHUNKED, 0, 1 << 30).feed(raw),
    _frames,
    _events,
    lambda raw: decode(raw, ToControl),
    path_and_query,
    values_of,
    lambda raw: hops_of([raw]),
    lambda raw: Trust(("10.0.0.0/8",)).client_of(b"10.0.0.1", [raw]),
]


def pump(data: bytes) -> None:
    if len(data) < 4:
        return
    parse = PARSERS[data[0] % len(PARSERS)]
    begin, size, raw = data[1] % 64, data[2] % 16 + 1, data[3:]
    first, again, last = raw[:begin], raw[begin : begin + size], raw[begin + size :]
    if _steep(parse, first, again, last):
        assert not all(_steep(parse, first, again, last) for _ in range(4)), "time grows faster than the input"


def _steep(parse: Callable[[bytes], object], first: bytes, again: bytes, last: bytes) -> bool:
    few_s = _time_s(parse, first + again * FEW + last)
    many_s = _time_s(parse, first + again * MANY + last)
    return many_s > WORTH_A_LOOK_S and many_s > TOO_STEEP * (MANY // FEW) * few_s


def _time_s(parse: Callable[[bytes], object], raw: bytes) -> float:
    begun = thread_time()
    with suppress(Refused, Declined, LinkBroken):
        parse(raw)
    return thread_time() - begun
