"""What HTTP/2 demands of a server, frame by frame (RFC 9113 and 7541): the cases of h2spec, and some that it has not.

A case is what the client sends, and what it must see then. A number among what is sent: the answer on this stream is
awaited first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

from support.raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    data,
    frame,
    get,
    headers,
    literal,
    ping,
    post,
    priority,
    rst_stream,
    settings,
    window_update,
)

Sent = Sequence[bytes | int]
LARGEST = 2**31 - 1
PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION = 1, 3, 5, 6, 7, 9
WHOLE = END_HEADERS | END_STREAM


@dataclass(frozen=True, slots=True)
class Answered:
    """Every one of these streams has its answer, and the connection goes on."""

    streams: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream is reset, and the connection goes on."""

    code: int
    stream: int = 1


@dataclass(frozen=True, slots=True)
class Gone:
    """The connection ends, with this code."""

    code: int


Due = Answered | Reset | Gone
GET, POST = headers(1, get()), headers(1, post(), end=False)
END = data(1, b"", end=True)
BLOCK = block(get())
HALF = frame(HEADERS, END_STREAM, 1, BLOCK[:10])
REST = frame(CONTINUATION, END_HEADERS, 1, BLOCK[10:])
LAST = [frame(CONTINUATION, 0, 1, b""), frame(CONTINUATION, END_HEADERS, 1, BLOCK[20:])]
PSEUDO = b"\x82\x86\x41\x01a\x84"  # GET, http, "a", /


def raw_head(raw: bytes) -> bytes:
    """HEADERS with a request and these bytes of HPACK behind it."""
    return frame(HEADERS, WHOLE, 1, PSEUDO + raw)


def setting(number: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, pack(">HI", number, value))


STREAMS: dict[str, tuple[Sent, Due]] = {
    "PRIORITY on an idle stream": ([priority(5), GET], Answered()),
    "PRIORITY on an idle stream, and a lower stream": ([priority(9), headers(5, get())], Answered((5,))),
    "WINDOW_UPDATE on a half-closed stream": ([GET, window_update(1, 1)], Answered()),
    "PRIORITY on a half-closed stream": ([GET, priority(1)], Answered()),
    "PRIORITY on a closed stream": ([GET, 1, priority(1), headers(3, get())], Answered((3,))),
    "WINDOW_UPDATE on a closed stream": ([GET, 1, window_update(1, 1), headers(3, get())], Answered((3,))),
    "RST_STREAM on a closed stream": ([GET, 1, rst_stream(1), headers(3, get())], Answered((3,))),
    "RST_STREAM on an open stream": ([POST, rst_stream(1), headers(3, get())], Answered((3,))),
    "RST_STREAM with an unknown code": ([POST, rst_stream(1, 255), headers(3, get())], Answered((3,))),
    "PRIORITY, exclusive": ([priority(1, 1 << 31 | 3, 255), GET], Answered()),
    "DATA on an idle stream": ([data(1, b"x")], Gone(PROTOCOL)),
    "RST_STREAM on an idle stream": ([rst_stream(1)], Gone(PROTOCOL)),
    "WINDOW_UPDATE on an idle stream": ([window_update(1, 1)], Gone(PROTOCOL)),
    "CONTINUATION on an idle stream": ([REST], Gone(PROTOCOL)),
    "DATA on a half-closed stream": ([headers(1, get(b"/wait")), data(1, b"x")], Reset(CLOSED)),
    "HEADERS on a half-closed stream": ([headers(1, get(b"/wait")), GET], Reset(CLOSED)),
    "CONTINUATION on a half-closed stream": ([headers(1, get(b"/wait")), REST], Gone(PROTOCOL)),
    "DATA behind RST_STREAM": ([POST, rst_stream(1), data(1, b"x")], Gone(CLOSED)),
    "HEADERS behind RST_STREAM": ([POST, rst_stream(1), GET], Gone(CLOSED)),
    "CONTINUATION behind RST_STREAM": ([POST, rst_stream(1), REST], Gone(PROTOCOL)),
    "DATA on a closed stream": ([GET, 1, data(1, b"x")], Gone(CLOSED)),
    "HEADERS on a closed stream": ([GET, 1, GET], Gone(CLOSED)),
    "CONTINUATION on a closed stream": ([GET, 1, REST], Gone(PROTOCOL)),
    "an even stream": ([headers(2, get())], Gone(PROTOCOL)),
    "a stream whose id goes back": ([headers(5, get()), headers(3, get())], Gone(PROTOCOL)),
    "HEADERS that depend on themselves": (
        [frame(HEADERS, WHOLE | HAS_PRIORITY, 1, b"\0\0\0\1\xff" + BLOCK)],
        Reset(PROTOCOL),
    ),
    "PRIORITY that depends on itself": ([POST, priority(1, 1)], Reset(PROTOCOL)),
}
FRAMES: dict[str, tuple[Sent, Due]] = {
    "an unknown type": ([frame(0x16, 0, 0, b"????"), frame(0x16, 0xFF, 1, b""), GET], Answered()),
    "unknown flags": ([frame(PING, 0xFE, 0, bytes(8)), GET], Answered()),
    "the reserved bit": ([frame(PING, 0, 1 << 31, bytes(8)), GET], Answered()),
    "an unknown type in a header block": ([HALF, frame(0x16, 0, 0, b"????")], Gone(PROTOCOL)),
    "DATA of 16384 bytes": ([POST, data(1, bytes(16384), end=True)], Answered()),
    "DATA that is too large": ([POST, data(1, bytes(16385), end=True)], Gone(SIZE)),
    "HEADERS that are too large": ([frame(HEADERS, WHOLE, 1, bytes(16385))], Gone(SIZE)),
    "several DATA": ([POST, data(1, b"a"), data(1, b"b"), END], Answered()),
    "DATA with padding": ([POST, frame(DATA, PADDED | END_STREAM, 1, b"\x05body" + bytes(5))], Answered()),
    "DATA with nothing but padding": ([POST, frame(DATA, PADDED | END_STREAM, 1, b"\x05" + bytes(5))], Answered()),
    "DATA with too much padding": ([POST, frame(DATA, PADDED | END_STREAM, 1, b"\x06" + bytes(5))], Gone(PROTOCOL)),
    "DATA without the length of its padding": ([POST, frame(DATA, PADDED | END_STREAM, 1)], Gone(SIZE)),
    "DATA on no stream": ([POST, data(0, b"x")], Gone(PROTOCOL)),
    "HEADERS with padding": ([frame(HEADERS, WHOLE | PADDED, 1, b"\x03" + BLOCK + bytes(3))], Answered()),
    "HEADERS with too much padding": ([frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + BLOCK)], Gone(PROTOCOL)),
    "HEADERS with priority": ([frame(HEADERS, WHOLE | HAS_PRIORITY, 1, bytes(4) + b"\xff" + BLOCK)], Answered()),
    "HEADERS without their priority": ([frame(HEADERS, WHOLE | HAS_PRIORITY, 1, bytes(4))], Gone(SIZE)),
    "HEADERS on no stream": ([frame(HEADERS, WHOLE, 0, BLOCK)], Gone(PROTOCOL)),
    "CONTINUATION": ([HALF, REST], Answered()),
    "several CONTINUATION": (
        [HALF, *(frame(CONTINUATION, 0, 1, BLOCK[at : at + 1]) for at in range(10, 20)), *LAST],
        Answered(),
    ),
    "CONTINUATION of another stream": ([HALF, frame(CONTINUATION, END_HEADERS, 3, BLOCK[10:])], Gone(PROTOCOL)),
    "CONTINUATION on no stream": ([HALF, frame(CONTINUATION, END_HEADERS, 0, BLOCK[10:])], Gone(PROTOCOL)),
    "CONTINUATION behind a whole block": ([POST, REST], Gone(PROTOCOL)),
    "CONTINUATION behind the last one": ([HALF, REST, REST], Gone(PROTOCOL)),
    "CONTINUATION behind DATA": ([POST, data(1, b"x"), REST], Gone(PROTOCOL)),
    "PRIORITY in a header block": ([HALF, priority(1)], Gone(PROTOCOL)),
    "DATA in a header block": ([HALF, data(1, b"x")], Gone(PROTOCOL)),
    "PING in a header block": ([HALF, ping()], Gone(PROTOCOL)),
    "another stream in a header block": ([HALF, headers(3, get())], Gone(PROTOCOL)),
    "PRIORITY on no stream": ([priority(0)], Gone(PROTOCOL)),
    "PRIORITY of 4 bytes": ([POST, frame(PRIORITY, 0, 1, bytes(4))], Reset(SIZE)),
    "RST_STREAM on no stream": ([rst_stream(0)], Gone(PROTOCOL)),
    "RST_STREAM of 3 bytes": ([POST, frame(RST_STREAM, 0, 1, bytes(3))], Gone(SIZE)),
    "SETTINGS on a stream": ([frame(SETTINGS, 0, 1, b"")], Gone(PROTOCOL)),
    "SETTINGS of 3 bytes": ([frame(SETTINGS, 0, 0, bytes(3))], Gone(SIZE)),
    "an ACK of SETTINGS with bytes": ([frame(SETTINGS, ACK, 0, bytes(6))], Gone(SIZE)),
    "ENABLE_PUSH of 2": ([setting(2, 2)], Gone(PROTOCOL)),
    "INITIAL_WINDOW_SIZE of 2^31": ([setting(4, 1 << 31)], Gone(FLOW)),
    "MAX_FRAME_SIZE of 16383": ([setting(5, 16383)], Gone(PROTOCOL)),
    "MAX_FRAME_SIZE of 2^24": ([setting(5, 1 << 24)], Gone(PROTOCOL)),
    "an unknown setting": ([setting(0xFF, 1), GET], Answered()),
    "settings in order": ([frame(SETTINGS, 0, 0, pack(">HIHI", 4, 1, 4, 100)), GET], Answered()),
    "PUSH_PROMISE": ([frame(PUSH_PROMISE, END_HEADERS, 1, pack(">I", 2) + BLOCK)], Gone(PROTOCOL)),
    "PING of 6 bytes": ([frame(PING, 0, 0, bytes(6))], Gone(SIZE)),
    "PING on a stream": ([frame(PING, 0, 1, bytes(8))], Gone(PROTOCOL)),
    "an ACK of no PING": ([frame(PING, ACK, 0, bytes(8)), GET], Answered()),
    "GOAWAY on a stream": ([frame(GOAWAY, 0, 1, bytes(8))], Gone(PROTOCOL)),
    "GOAWAY of 4 bytes": ([frame(GOAWAY, 0, 0, bytes(4))], Gone(SIZE)),
    "GOAWAY with an unknown code": ([POST, frame(GOAWAY, 0, 0, pack(">II", 0, 255)), END], Answered()),
    "WINDOW_UPDATE of 0": ([window_update(0, 0)], Gone(PROTOCOL)),
    "WINDOW_UPDATE of 0 on a stream": ([POST, window_update(1, 0)], Reset(PROTOCOL)),
    "WINDOW_UPDATE of 3 bytes": ([frame(WINDOW_UPDATE, 0, 0, bytes(3))], Gone(SIZE)),
    "a window over 2^31": ([window_update(0, LARGEST)], Gone(FLOW)),
    "a stream's window over 2^31": ([POST, window_update(1, LARGEST)], Reset(FLOW)),
    "a stream's window over 2^31 by SETTINGS": ([POST, window_update(1, 1 << 30), setting(4, LARGEST)], Gone(FLOW)),
    "a window of 1, and more": ([settings(window=1), GET, window_update(1, 100)], Answered()),
    "a window of 0, and more by SETTINGS": ([settings(window=0), GET, settings(window=1), setting(4, 9)], Answered()),
    "a window below 0": (
        [GET, settings(window=3), settings(window=2), window_update(1, 2), window_update(1, 100)],
        Answered(),
    ),
    "DATA beyond the window": (
        [POST, *[data(1, bytes(16384))] * 5],
        Reset(FLOW),
    ),
}
BLOCKS: dict[str, tuple[Sent, Due]] = {
    "indexed fields": ([raw_head(b"")], Answered()),
    "a field that is kept, and named": (
        [raw_head(b"\x40\x01a\x01b\xbe"), frame(HEADERS, WHOLE, 3, PSEUDO)],
        Answered(),
    ),
    "a kept field with a known name": ([raw_head(b"\x53\x03*/*")], Answered()),
    "Huffman code": ([raw_head(b"\x53\x82\x83\x1f")], Answered()),
    "a field that is not kept": ([raw_head(b"\x00\x01a\x01b")], Answered()),
    "a field that is never kept": ([raw_head(b"\x10\x01a\x01b")], Answered()),
    "a new table size": ([frame(HEADERS, WHOLE, 1, b"\x20" + PSEUDO)], Answered()),
    "two new table sizes": ([frame(HEADERS, WHOLE, 1, b"\x20\x3f\xe1\x1f" + PSEUDO)], Answered()),
    "three new table sizes": ([frame(HEADERS, WHOLE, 1, b"\x20\x20\x20" + PSEUDO)], Gone(COMPRESSION)),
    "a table size at the end": ([raw_head(b"\x20")], Gone(COMPRESSION)),
    "a table size over the setting": ([frame(HEADERS, WHOLE, 1, b"\x3f\xe2\x1f" + PSEUDO)], Gone(COMPRESSION)),
    "index 0": ([raw_head(b"\x80")], Gone(COMPRESSION)),
    "an index beyond the table": ([raw_head(b"\xbf")], Gone(COMPRESSION)),
    "a name beyond the table": ([raw_head(b"\x7f\x00\x01a")], Gone(COMPRESSION)),
    "Huffman code with 8 bits of padding": ([raw_head(b"\x00\x01a\x84\x49\x50\x9f\xff")], Gone(COMPRESSION)),
    "Huffman code padded with 0": ([raw_head(b"\x00\x84\xf2\xb2\x4a\x80\x01x")], Gone(COMPRESSION)),
    "Huffman code with EOS": ([raw_head(b"\x00\x85\xff\xff\xff\xff\xff\x01x")], Gone(COMPRESSION)),
    "a text longer than its block": ([raw_head(b"\x00\x7f\x80\x01a")], Gone(COMPRESSION)),
    "an integer without an end": ([raw_head(b"\x00\x7f" + b"\xff" * 12)], Gone(COMPRESSION)),
    "a block that breaks off": ([frame(HEADERS, WHOLE, 1, BLOCK[:-1])], Gone(COMPRESSION)),
    "a block of a refused head is decoded": (
        [headers(1, [*get(), (b"Upper", b"x")]), frame(HEADERS, WHOLE, 3, PSEUDO + literal(b"a", b"b"))],
        Answered((3,)),
    ),
}
MESSAGES: dict[str, tuple[Sent, Due]] = {
    "GET": ([GET], Answered()),
    "POST": ([POST, data(1, b"x"), END], Answered()),
    "POST with trailers": ([POST, data(1, b"x"), headers(1, [(b"x-test", b"ok")])], Answered()),
    "many streams": ([headers(number, get()) for number in range(1, 41, 2)], Answered(tuple(range(1, 41, 2)))),
    "more streams than may be": (
        [headers(number, get(b"/wait")) for number in range(1, 203, 2)],
        Reset(REFUSED, 201),
    ),
    "trailers that do not end": ([POST, headers(1, [(b"x", b"y")], end=False)], Reset(PROTOCOL)),
    "no fields": ([frame(HEADERS, WHOLE, 1)], Reset(PROTOCOL)),
}
CASES = {**STREAMS, **FRAMES, **BLOCKS, **MESSAGES}
