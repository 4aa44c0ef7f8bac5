"""Frames of HTTP/2 (RFC 9113, 4 and 6): types, flags, settings; and what a frame that we send looks like.

Knows one frame at a time. connection.py says which frame may come when.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_CONNECT_PROTOCOL: Final = 8  # RFC 8441

LARGEST_ID: Final = 2**31 - 1
LARGEST_WINDOW_BYTES: Final = 2**31 - 1
DEFAULT_WINDOW_BYTES: Final = 65535
SMALLEST_MAX_FRAME_BYTES: Final = 16384
LARGEST_MAX_FRAME_BYTES: Final = 2**24 - 1

# A header in three numbers: length << 8 | type, flags, stream.
pack_header: Final = Struct(">IBI").pack
unpack_header: Final = Struct(">IBI").unpack_from
_setting: Final = Struct(">HI")
_pack_two: Final = Struct(">II").pack
_pack_update: Final = Struct(">IBII").pack


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return pack_header(len(payload) << 8 | kind, flags, stream_id) + payload


def headers(stream_id: int, block: bytes, max_frame_bytes: int, *, end: bool) -> bytes:
    """HEADERS, and CONTINUATION for what does not fit into one frame."""
    flags = END_STREAM if end else 0
    if len(block) <= max_frame_bytes:
        return pack_header(len(block) << 8 | HEADERS, flags | END_HEADERS, stream_id) + block
    parts = [block[at : at + max_frame_bytes] for at in range(0, len(block), max_frame_bytes)]
    last = frame(CONTINUATION, END_HEADERS, stream_id, parts[-1])
    between = [frame(CONTINUATION, 0, stream_id, part) for part in parts[1:-1]]
    return b"".join((frame(HEADERS, flags, stream_id, parts[0]), *between, last))


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(*pair) for pair in values))


def read_settings(payload: bytes) -> Iterable[tuple[int, int]]:
    """The pairs of a payload whose length is a multiple of six."""
    return _setting.iter_unpack(payload)


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def rst_stream(stream_id: int, code: int) -> bytes:
    return _pack_update(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, size: int) -> bytes:
    return _pack_update(4 << 8 | WINDOW_UPDATE, 0, stream_id, size)


def ping(payload: bytes, *, ack: bool) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last_id: int, code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, _pack_two(last_id, code) + debug)
