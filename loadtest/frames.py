"""WebSocket frames by hand, for the origin and for the storm's clients (RFC 6455, 5.2).

Trusts that a peer sends no more than it should: a load test is no server for the world.
"""

import base64
import hashlib
import struct
from collections.abc import Sequence

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
FIN = 0x80
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3

Frame = tuple[int, bytes]  # first byte, payload without its mask


def frame(first: int, payload: bytes, mask: bytes = b"") -> bytes:
    """One frame. `first`: the opcode, and FIN unless more fragments follow."""
    size, masked = len(payload), 0x80 if mask else 0
    if size < 126:
        head = bytes((first, masked | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    return head + mask + _xor(payload, mask) if mask else head + payload


def whole_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """The complete frames in `data`, and the bytes after them."""
    frames: list[Frame] = []
    at, end = 0, len(data)
    while end - at >= 2:
        size = data[at + 1] & 0x7F
        head = at + (2 if size < 126 else 4 if size == 126 else 10)
        if size > 125:
            size = int.from_bytes(data[at + 2 : head], "big") if head <= end else end
        mask = b""
        if data[at + 1] & 0x80:
            mask = data[head : head + 4]
            head += 4
        if head + size > end:
            break
        payload = data[head : head + size]
        frames.append((data[at], _xor(payload, mask) if mask else payload))
        at = head + size
    return frames, data[at:]


def _xor(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def accept_of(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


_FILLING = bytes(range(32, 127)) * 800
PUSHED_BYTES: Sequence[int] = (10, 100, 20, 1000, 10, 130, 5000, 40)


def pushed(number: int) -> bytes:
    """The origin's message `number`. Messages have heads of every length, and some are longer than a buffer."""
    size = 70_000 if number % 200 == 0 else PUSHED_BYTES[number % len(PUSHED_BYTES)]
    return b"%d %b" % (number, _FILLING[:size])
