"""WebSocket frames and event streams under any bytes, beside plain readers that see all of them at once."""

from dataclasses import dataclass, field

from fuzz.heads import pieces_of
from lbproxy.wire.sse import EventTracker
from lbproxy.wire.websocket import Boundary, FrameTracker

BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Reading:
    """What a plain reader of RFC 6455 5.2 makes of the bytes of one direction."""

    boundaries: list[tuple[int, bool]] = field(default_factory=list)  # offset, is a message open?
    closes: int | None = None  # where a Close begins, or what looks like one
    code: int | None = None
    reason: bytes = b""
    lost: bool = False
    frames: int = 0
    messages: int = 0


def read_frames(raw: bytes) -> Reading:
    reading, at, message_open = Reading(), 0, False
    while True:
        reading.boundaries.append((at, message_open))
        if at == len(raw):
            return reading
        first = raw[at]
        fin, opcode = first >> 7, first & 0x0F
        control = opcode >= 8
        if first & 0x8F == 0x88:
            reading.closes = at
        reading.lost = opcode > 10 or 2 < opcode < 8 or (not fin if control else (opcode == 0) != message_open)
        if reading.lost or len(raw) < at + 2:
            return reading
        size = raw[at + 1] & 0x7F
        if control and size > 125:
            reading.lost = True
            return reading
        wide = {126: 2, 127: 8}.get(size, 0)
        head = at + 2 + wide + (4 if raw[at + 1] & 0x80 else 0)
        if len(raw) < head:
            return reading
        if wide:
            size = int.from_bytes(raw[at + 2 : at + 2 + wide], "big")
            if size >= 1 << 63:
                reading.lost = True
                return reading
        reading.frames += 1
        if not control:
            message_open = not fin
            reading.messages += fin
        if len(raw) < head + size:
            return reading
        if opcode == 8:
            payload = raw[head : head + size]
            if raw[at + 1] & 0x80:
                payload = bytes(byte ^ raw[head - 4 + index % 4] for index, byte in enumerate(payload))
            reading.code = int.from_bytes(payload[:2], "big") if size >= 2 else 1005
            reading.reason = payload[2:]
            return reading
        at = head + size


def place(reading: Reading, stop: Boundary, begin: int) -> tuple[int, bool] | None:
    """Where feed_until(), from offset `begin`, has to end: the offset, and whether a Close begins there."""
    for at, message_open in reading.boundaries:
        closes = at == reading.closes
        good = closes or stop is Boundary.FRAME or (stop is Boundary.MESSAGE and not message_open)
        if at >= begin and good:
            return at, closes
    return None


def websocket(data: bytes) -> None:
    pieces, raw = pieces_of(data)
    reading = read_frames(raw)
    _same_facts(_fed([raw]), reading, raw)
    _same_facts(_fed(pieces), reading, raw)
    if len(raw) <= 300:
        _same_facts(_fed([raw[at : at + 1] for at in range(len(raw))]), reading, raw)
    for stop in Boundary:
        for behind in range(len(pieces)):
            _stops(pieces, behind, stop, reading)


def _fed(pieces: list[bytes]) -> FrameTracker:
    frames = FrameTracker()
    for piece in pieces:
        frames.feed(piece)
    return frames


def _same_facts(frames: FrameTracker, reading: Reading, raw: bytes) -> None:
    assert frames.lost == reading.lost
    assert (frames.frames, frames.messages) == (reading.frames, reading.messages)
    assert (frames.close_code, frames.close_reason) == (reading.code, reading.reason)
    assert frames.close_complete == (reading.code is not None)
    stands = reading.boundaries[-1] if reading.boundaries[-1][0] == len(raw) else None
    assert frames.at_frame_boundary == (stands is not None)
    assert frames.at_message_boundary == (stands is not None and not stands[1])


def _stops(pieces: list[bytes], behind: int, stop: Boundary, reading: Reading) -> None:
    """Pieces before `behind` pass as they are; from then on the first good place is wanted."""
    frames = _fed(pieces[:behind])
    begin = at = sum(map(len, pieces[:behind]))
    due = place(reading, stop, begin)
    for piece in pieces[behind:]:
        passed = frames.feed_until(piece, stop)
        if passed is not None:
            assert due is not None, "there is no such place"
            assert at + passed == due[0], "another place"
            # Whether a Close begins there is known only if its first byte is there.
            assert frames.close_next == (due[1] and passed < len(piece))
            return
        at += len(piece)
    assert due is None or due[0] == at, "the place was passed by"


def events(data: bytes) -> None:
    pieces, raw = pieces_of(data)
    due = event_ends(raw)
    at, tracker = 0, EventTracker()
    for piece in pieces:
        so_far = raw[: at + len(piece)]
        ends = [end for end in event_ends(so_far) if end >= at]
        assert tracker.last_boundary(piece) == (ends[-1] - at if ends else -1)
        tracker.feed(piece)
        at += len(piece)
        assert tracker.at_boundary == (at in event_ends(so_far))
    whole = EventTracker()
    whole.feed(raw)
    assert whole.at_boundary == (len(raw) in due) == tracker.at_boundary


def event_ends(raw: bytes) -> list[int]:
    """Where the stream may end (HTML 9.2.5), a CRLF in the making excepted."""
    begin = at = len(BOM) if raw.startswith(BOM) else 0
    found = {0, at}
    while True:
        ends = [end for mark in (b"\r", b"\n") if (end := raw.find(mark, at)) >= 0]
        if not ends:
            break
        end = min(ends)
        behind = end + (2 if raw[end : end + 2] == b"\r\n" else 1)
        if end == at:
            found.add(behind)
        at = behind
    if (b"\n" + raw[begin:]).endswith(b"\n\r"):
        found.discard(len(raw))
    return sorted(found)
