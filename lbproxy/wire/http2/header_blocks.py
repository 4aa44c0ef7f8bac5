"""A header block out of HEADERS and the CONTINUATION frames behind it (RFC 9113, 4.3 and 6.10).

Takes padding and the old priority off. Knows nothing of streams, and not what is in a block.
"""

from typing import Final

from lbproxy.wire.http2.errors import ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR, PROTOCOL_ERROR, ConnectionFailed
from lbproxy.wire.http2.frames import END_HEADERS, HAS_PRIORITY, LARGEST_ID, PADDED

MOST_FRAGMENTS: Final = 64
ON_ITSELF: Final = 0x100  # a flag of ours: the stream depends on itself


def unpadded(payload: bytes) -> bytes:
    """The payload of a frame with PADDED, without the padding."""
    if not payload:
        raise ConnectionFailed(FRAME_SIZE_ERROR, "a padded frame without a length of padding")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFailed(PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - padding]


def depends_on(priority: bytes) -> int:
    return int.from_bytes(priority[:4], "big") & LARGEST_ID


class HeaderBlocks:
    """At most one block is open: nothing may come between its frames."""

    __slots__ = ("_fragments", "_max_bytes", "_size", "flags", "open_stream")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._fragments: list[bytes] = []
        self._size = 0
        self.open_stream = 0  # whose block goes on; 0: no block is open
        self.flags = 0  # of the HEADERS frame, and ON_ITSELF

    def begin(self, flags: int, stream_id: int, payload: bytes) -> bytes | None:
        """HEADERS. The block, if it is whole."""
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & HAS_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "HEADERS without the priority that they announce")
            if depends_on(payload) == stream_id:
                flags |= ON_ITSELF
            payload = payload[5:]
        self.flags = flags
        if flags & END_HEADERS:
            return payload
        if not stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "HEADERS on no stream")
        self._fragments = [payload]
        self._size = len(payload)
        self.open_stream = stream_id
        return None

    def go_on(self, flags: int, payload: bytes) -> bytes | None:
        """CONTINUATION. The block, if it is whole now."""
        if not self.open_stream:
            raise ConnectionFailed(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._fragments.append(payload)
        self._size += len(payload)
        if self._size > self._max_bytes or len(self._fragments) > MOST_FRAGMENTS:
            self._fragments.clear()  # the connection lingers for a second, and there may be thousands
            raise ConnectionFailed(ENHANCE_YOUR_CALM, "a header block that does not end")
        if not flags & END_HEADERS:
            return None
        block = b"".join(self._fragments)
        self._fragments = []
        self.open_stream = 0
        return block
