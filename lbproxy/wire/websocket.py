"""Follow WebSocket frames as they pass, without decoding them (RFC 6455, 5.2), and make the one frame that we send.

Knows one direction of one connection. Knows nothing of sockets, time or draining.
"""

from dataclasses import dataclass
from enum import IntEnum

Data = bytes | bytearray | memoryview

_CLOSE = 0x88
_NO_CODE = 1005  # what an empty Close means (RFC 6455 7.1.5)
_MAX_CONTROL = 125
_MOST_HEAD_BYTES = 14

# What the first byte of a head means: 0 is a ping or pong. The reserved bits belong to extensions (RSV1: compressed).
_ENDS = 1  # the message with this frame
_OPENS = 2  # a message, or keeps it open
_CLOSES = 4
_VIOLATES = 8


def _meaning(first: int, message_open: bool) -> int:
    fin, opcode = first >= 0x80, first & 0x0F
    if opcode >= 0x8:
        return {0x8: _CLOSES, 0x9: 0, 0xA: 0}.get(opcode, _VIOLATES) if fin else _VIOLATES
    if opcode > 0x2 or (opcode == 0) != message_open:
        return _VIOLATES
    return _ENDS if fin else _OPENS


_MEANINGS = tuple(bytes(_meaning(first, message_open) for first in range(256)) for message_open in (False, True))


class Boundary(IntEnum):
    """Where the bytes that pass have to end. A Close never passes."""

    CLOSE = 1  # only before a Close
    FRAME = 2  # between two frames
    MESSAGE = 3  # between two messages; control frames between the fragments of one do not matter


@dataclass(frozen=True, slots=True)
class FramePosition:
    """The state of a FrameTracker before a Close, as a value: another tracker goes on from it."""

    left: int  # payload of the frame in hand that is still to come
    head: str  # the beginning of a head that was cut: hexadecimal
    message_open: bool
    lost: bool
    frames: int
    messages: int


class FrameTracker:
    """Where in the frames does this direction stand?

    The owner feeds every byte in order, either with feed() when all of them pass on, or with feed_until(), which tells
    how many may. The cost is that of the heads: payloads are skipped, whatever their size, and nothing is kept but an
    incomplete head (13 bytes) and the payload of a Close (125).

    A proxy does not police WebSocket. After a violation (see `lost`) the bytes still pass, but nobody can know any more
    where a frame begins, so that no Close may be put between them.
    """

    __slots__ = (
        "_close",
        "_head",
        "_left",
        "_mask",
        "_message_open",
        "close_complete",
        "close_next",
        "frames",
        "lost",
        "messages",
    )

    def __init__(self) -> None:
        self.frames = 0  # whose head has passed
        self.messages = 0  # the head of whose last frame has passed
        self.lost = False  # a reserved opcode, a control frame of more than 125 bytes or in fragments, a fragment
        # without a beginning or a beginning amid fragments, a length of 2**63 or more
        self.close_next = False  # feed_until() stopped where a Close begins
        self.close_complete = False  # what follows is no frame
        self._left = 0  # payload of the frame in hand that is still to come
        self._head = b""  # the beginning of a head that was cut
        self._message_open = False  # a fragment has passed, the last one has not
        self._close: bytearray | None = None  # payload of the Close in hand, still masked
        self._mask = b""

    @classmethod
    def at(cls, position: FramePosition) -> "FrameTracker":
        """Raises ValueError if no tracker can stand there."""
        head = bytes.fromhex(position.head)
        if not 0 <= position.left < 1 << 63 or len(head) >= _MOST_HEAD_BYTES or (head and position.left):
            raise ValueError(f"no place in a frame: {position}")
        tracker = cls()
        tracker._left, tracker._head = position.left, head
        tracker._message_open, tracker.lost = position.message_open, position.lost
        tracker.frames, tracker.messages = position.frames, position.messages
        return tracker

    @property
    def position(self) -> FramePosition | None:
        """None: a Close has begun, and what follows is not worth moving."""
        if self._close is not None:
            return None
        return FramePosition(self._left, self._head.hex(), self._message_open, self.lost, self.frames, self.messages)

    @property
    def close_seen(self) -> bool:
        """The head of a Close has passed: this side has said its last word."""
        return self._close is not None

    @property
    def at_frame_boundary(self) -> bool:
        """May a frame be put in here? Never after a Close."""
        return not self._left and not self._head and self._close is None and not self.lost

    @property
    def at_message_boundary(self) -> bool:
        """May a frame be put in here without parting the fragments of a message?"""
        return not self._message_open and self.at_frame_boundary

    @property
    def close_code(self) -> int | None:
        """Of the complete Close; 1005 if it carried none."""
        if self._close is None or not self.close_complete:
            return None
        payload = self._unmasked()
        return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else _NO_CODE

    @property
    def close_reason(self) -> bytes:
        """What follows the code in a complete Close; not necessarily UTF-8."""
        return self._unmasked()[2:] if self.close_complete else b""

    def feed(self, data: Data) -> None:
        """All of `data` passes."""
        if self._left or self._head or self._close is not None or self.lost:
            self._advance(data, 0, None)
            return
        # Hot: most buffers are one whole frame that is a message of its own, with a short head (0.2 us).
        if not self._message_open and len(data) > 1 and _MEANINGS[0][data[0]] == _ENDS:
            size = data[1]
            if size & 0x7F < 126 and len(data) == (size - 0x7A if size >= 0x80 else size + 2):
                self.frames += 1
                self.messages += 1
                return
        at = self._pass_short(data, 0)
        if at < len(data):
            self._advance(data, at, None)

    def feed_until(self, data: Data, stop: Boundary) -> int | None:
        """How many bytes of `data` may pass so that the direction stands where `stop` says; only those are fed.

        None: there is no such place in `data`, all of it passes. 0: it stands there already. The place is always good
        for one frame of ours. If it is the beginning of a Close, `close_next` is set: swallow the rest, or feed() it
        and let it pass. After a Close, and when lost, there is no place any more.
        """
        self.close_next = False
        passed = self._advance(data, 0, stop)
        return passed if passed < len(data) or self._stands(stop) else None

    def _stands(self, stop: Boundary) -> bool:
        if stop is Boundary.MESSAGE:
            return self.at_message_boundary
        return stop is Boundary.FRAME and self.at_frame_boundary

    def _advance(self, data: Data, at: int, stop: Boundary | None) -> int:
        """Pass frames, from `at` until `stop`. Returns the offset behind the last byte that passed."""
        end = len(data)
        while not self.lost and not self.close_complete:
            left = self._left
            if left:
                if self._close is not None:
                    self._close += data[at : at + left]
                if left > end - at:
                    self._left = left - (end - at)
                    return end
                at += left
                self._left = 0
            if self._close is not None:
                self.close_complete = True
                return end
            if not self._head:
                if stop is None:
                    at = self._pass_short(data, at)
                elif at < end and data[at] & 0x8F == _CLOSE:
                    self.close_next = True
                    return at
                elif self._stands(stop):
                    return at
            if at == end:
                return end
            at = self._read_head(data, at)
            if self._head:
                return end
        return end

    def _pass_short(self, data: Data, at: int) -> int:
        """Pass frames that begin at `at` and are here as a whole, as long as their heads are short and regular."""
        # Hot: a megabyte of empty frames, at 0.1 us each instead of
        # _read_head's 0.7, may not hold the others up for half a second. What is not taken here is no error.
        end = len(data)
        message_open = self._message_open
        meanings = _MEANINGS[message_open]
        frames = messages = 0
        while end - at >= 4:
            meaning = meanings[data[at]]
            size = data[at + 1]
            length = size & 0x7F
            if meaning >= _CLOSES or length == 127:
                break
            behind = at + (6 if size >= 0x80 else 2) + length
            if length == 126:
                if data[at] & 0x08:
                    break
                behind += 2 - 126 + (data[at + 2] << 8 | data[at + 3])
            if behind > end:
                break
            at = behind
            frames += 1
            if meaning:
                messages += meaning & _ENDS
                message_open = meaning >= _OPENS
                meanings = _MEANINGS[message_open]
        self.frames += frames
        self.messages += messages
        self._message_open = message_open
        return at

    def _read_head(self, data: Data, at: int) -> int:
        """Take a head, or the rest of one, from `at`; an incomplete one is kept. Returns the offset behind it."""
        known = self._head
        raw = known + bytes(data[at : at + 14 - len(known)])
        meaning = _MEANINGS[self._message_open][raw[0]]
        size = raw[1] if len(raw) > 1 else 0
        length = size & 0x7F
        whole = (4 if length == 126 else 10 if length == 127 else 2) + (4 if size >= 0x80 else 0)
        if meaning == _VIOLATES or (raw[0] & 0x08 and length > _MAX_CONTROL):
            self.lost = True
            return len(data)
        if len(raw) < whole:
            self._head = raw
            return len(data)
        self._head = b""
        mask = raw[whole - 4 : whole] if size >= 0x80 else b""
        if length > _MAX_CONTROL:
            length = int.from_bytes(raw[2 : whole - len(mask)], "big")
            if length >= 1 << 63:
                self.lost = True
                return len(data)
        self.frames += 1
        self._left = length
        if meaning == _CLOSES:
            self._close = bytearray()
            self._mask = mask
        elif meaning:
            self.messages += meaning & _ENDS
            self._message_open = meaning == _OPENS
        return at + whole - len(known)

    def _unmasked(self) -> bytes:
        payload = bytes(self._close or b"")
        return _xor(payload, self._mask) if self._mask else payload


def close_frame(code: int, reason: str, mask: bytes | None) -> bytes:
    """A whole Close frame; `mask`: four random bytes towards a backend, None towards a client (RFC 6455 5.1)."""
    payload = code.to_bytes(2, "big") + reason.encode()
    if len(payload) > _MAX_CONTROL:
        raise ValueError("the reason of a Close has at most 123 bytes")
    if mask is None:
        return bytes((_CLOSE, len(payload))) + payload
    return bytes((_CLOSE, 0x80 | len(payload))) + mask + _xor(payload, mask)


def _xor(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))
