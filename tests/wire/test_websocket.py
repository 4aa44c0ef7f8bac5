"""Where frames begin and end, at every cut, with wsproto as the second opinion."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, RsvBits

from lbproxy.wire.websocket import Boundary, FrameTracker, close_frame

MASK = b"\x01\x02\x03\x04"
STOPS = list(Boundary)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = False, rsv: int = 0) -> bytes:
    first = bytes((fin << 7 | rsv << 4 | opcode,))
    size = len(payload)
    bit = 0x80 if masked else 0
    if size < 126:
        head = first + bytes((bit | size,))
    elif size < 65536:
        head = first + bytes((bit | 126,)) + size.to_bytes(2, "big")
    else:
        head = first + bytes((bit | 127,)) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))


TEXT = frame(1, b"hello")
PING = frame(9, b"?", masked=True)
FIRST, MIDDLE, LAST = frame(1, b"one", fin=False), frame(0, b"two", fin=False), frame(0, b"three")
CLOSE = close_frame(1000, "bye", None)


def fed(*pieces: bytes | memoryview) -> FrameTracker:
    frames = FrameTracker()
    for piece in pieces:
        frames.feed(piece)
    return frames


def cuts(data: bytes) -> list[int]:
    return list(range(len(data) + 1))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 300])
def test_boundary_is_known_after_every_byte_of_a_frame(size: int, masked: bool) -> None:
    whole = frame(2, b"x" * size, masked=masked)
    for cut in cuts(whole):
        frames = fed(whole[:cut])
        assert frames.at_frame_boundary == frames.at_message_boundary == (cut in (0, len(whole)))
        frames.feed(whole[cut:])
        assert frames.at_message_boundary
        assert (frames.frames, frames.messages) == (1, 1)


def test_a_head_of_fourteen_bytes_may_be_cut_anywhere() -> None:
    head = frame(2, b"x" * 70_000, masked=True)[:14]
    for cut in cuts(head):
        frames = fed(head[:cut], head[cut:])
        assert not frames.at_frame_boundary
        frames.feed(b"x" * 69_999)
        assert not frames.at_frame_boundary
        frames.feed(b"x")
        assert frames.at_frame_boundary


def test_byte_by_byte_is_the_same_as_in_one_piece() -> None:
    stream = TEXT + FIRST + PING + MIDDLE + LAST + frame(2, b"y" * 500, rsv=4) + CLOSE
    frames = fed(*(memoryview(stream)[at : at + 1] for at in range(len(stream))))
    whole = fed(stream)
    assert (frames.frames, frames.messages) == (whole.frames, whole.messages) == (7, 3)
    assert frames.close_complete
    assert whole.close_complete
    assert (frames.close_code, frames.close_reason) == (whole.close_code, whole.close_reason) == (1000, b"bye")


def test_between_fragments_is_a_frame_boundary_but_no_message_boundary() -> None:
    for pieces in ([FIRST], [FIRST, PING], [FIRST, MIDDLE], [FIRST, MIDDLE, PING]):
        frames = fed(*pieces)
        assert frames.at_frame_boundary
        assert not frames.at_message_boundary
    assert fed(FIRST, PING, MIDDLE, LAST).at_message_boundary


def test_a_control_frame_between_messages_leaves_a_message_boundary() -> None:
    assert fed(TEXT, PING).at_message_boundary
    assert not fed(TEXT, PING[:-1]).at_message_boundary


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 1005, b""),
        (b"\x03\xe9", 1001, b""),
        (b"\x0f\xa0" + b"r" * 123, 4000, b"r" * 123),
        (b"\x03\xe8\xff", 1000, b"\xff"),
    ],
)
def test_a_close_gives_its_code_and_reason_once_it_is_complete(
    payload: bytes, code: int, reason: bytes, masked: bool
) -> None:
    close = frame(8, payload, masked=masked)
    for cut in cuts(close):
        frames = fed(TEXT + close[:cut])
        assert frames.close_complete == (cut == len(close))
        assert frames.close_code == (code if cut == len(close) else None)
        assert frames.close_seen == (cut >= (6 if masked else 2))
        frames.feed(close[cut:])
        assert (frames.close_seen, frames.close_complete) == (True, True)
        assert (frames.close_code, frames.close_reason) == (code, reason)


def test_after_a_close_nothing_may_be_put_in_and_everything_passes() -> None:
    frames = fed(CLOSE + TEXT[:3])
    frames.feed(b"\xff rubbish")
    assert frames.close_complete
    assert not frames.lost
    assert not frames.at_frame_boundary
    assert [frames.feed_until(TEXT, stop) for stop in STOPS] == [None, None, None]


@pytest.mark.parametrize(
    "violation",
    [
        frame(3, b"x"),
        frame(0xB, b"x"),
        frame(0xF),
        frame(0, b"x"),
        frame(0, b"x", fin=False),
        FIRST + frame(1, b"x"),
        FIRST + frame(2, b"x", fin=False),
        frame(9, b"x", fin=False),
        frame(8, b"", fin=False),
        b"\x89\x7e\x00\x7e" + b"x" * 126,
        b"\x88\xff" + bytes(8) + MASK,
        b"\x82\x7f\x80" + bytes(7),
        b"\x82\xff\xff" + bytes(7) + MASK,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_after_a_violation_the_tracker_is_lost_and_everything_passes(violation: bytes) -> None:
    for cut in cuts(violation):
        frames = fed(TEXT, violation[:cut], violation[cut:])
        assert frames.lost
        assert not frames.at_frame_boundary
        assert not frames.at_message_boundary
        frames.feed(TEXT)
        assert not frames.at_frame_boundary
        assert [frames.feed_until(TEXT + CLOSE, stop) for stop in STOPS] == [None, None, None]
        assert not frames.close_next


@pytest.mark.parametrize("rsv", range(8))
def test_reserved_bits_belong_to_extensions(rsv: int) -> None:
    frames = fed(frame(1, b"x", rsv=rsv), frame(9, rsv=rsv), frame(1, b"x", rsv=rsv, fin=False))
    assert not frames.lost
    assert frames.at_frame_boundary


def test_a_frame_longer_than_any_memory_costs_only_counting() -> None:
    frames = fed(b"\x82\xff" + (2**63 - 1).to_bytes(8, "big") + MASK)
    block = memoryview(bytes(1 << 20))
    for _ in range(1024):
        frames.feed(block)
    assert not frames.at_frame_boundary
    assert not frames.lost


def test_a_frame_of_one_gigabyte_ends_where_it_says() -> None:
    frames = fed(b"\x82\x7f" + (1 << 30).to_bytes(8, "big"))
    block = memoryview(bytes(1 << 20))
    for _ in range(1023):
        frames.feed(block)
    assert frames.feed_until(block[:-1], Boundary.FRAME) is None
    assert frames.feed_until(b"\x00" + TEXT, Boundary.FRAME) == 1


def test_a_megabyte_of_empty_frames_is_followed_in_less_than_a_second() -> None:
    flood = frame(1, fin=False) + frame(0, fin=False) * (1 << 19)
    frames = FrameTracker()
    began = time.process_time()
    frames.feed(flood[:1])
    frames.feed(flood[1:])
    assert time.process_time() - began < 1.0  # 0.15 s where this was written
    assert frames.frames == (1 << 19) + 1


def test_at_a_boundary_nothing_has_to_pass() -> None:
    frames = fed(TEXT)
    assert frames.feed_until(b"", Boundary.FRAME) == 0
    assert frames.feed_until(TEXT, Boundary.FRAME) == 0
    assert frames.feed_until(TEXT, Boundary.MESSAGE) == 0
    assert frames.frames == 1


def test_the_next_frame_boundary_is_found_from_every_cut() -> None:
    stream = TEXT + PING
    for cut in range(1, len(TEXT)):
        frames = fed(stream[:cut])
        assert frames.feed_until(stream[cut:], Boundary.FRAME) == len(TEXT) - cut
        assert frames.at_frame_boundary
        assert not frames.close_next


def test_the_next_message_boundary_lies_behind_all_fragments() -> None:
    stream = FIRST + PING + MIDDLE + LAST
    for cut in range(1, len(stream)):
        frames = fed(stream[:cut])
        assert frames.feed_until(stream[cut:] + TEXT, Boundary.MESSAGE) == len(stream) - cut
        assert frames.at_message_boundary


def test_bytes_without_a_boundary_pass_whole() -> None:
    frames = fed(FIRST)
    assert frames.feed_until(PING + MIDDLE, Boundary.MESSAGE) is None
    assert frames.feed_until(LAST[:-1], Boundary.MESSAGE) is None
    assert frames.feed_until(LAST[-1:], Boundary.MESSAGE) == 1
    assert frames.at_message_boundary


def test_a_close_is_announced_before_any_of_it_has_passed() -> None:
    stream = FIRST + PING + LAST + TEXT
    for cut in cuts(stream):
        frames = fed(stream[:cut])
        assert frames.feed_until(stream[cut:] + CLOSE[:1], Boundary.CLOSE) == len(stream) - cut
        assert frames.close_next
        assert not frames.close_seen
        assert frames.at_frame_boundary


def test_a_close_amid_fragments_ends_the_wait_for_a_message_boundary() -> None:
    frames = fed(FIRST)
    assert frames.feed_until(MIDDLE + CLOSE, Boundary.MESSAGE) == len(MIDDLE)
    assert frames.close_next
    assert frames.at_frame_boundary


@pytest.mark.parametrize("stop", STOPS)
def test_a_close_at_a_boundary_is_announced_until_other_bytes_are_asked_about(stop: Boundary) -> None:
    frames = FrameTracker()
    assert frames.feed_until(CLOSE, stop) == 0
    assert frames.close_next
    frames.feed_until(TEXT, stop)
    assert not frames.close_next


def test_a_close_that_was_withheld_can_still_be_read() -> None:
    frames = FrameTracker()
    passed = frames.feed_until(TEXT + CLOSE, Boundary.CLOSE)
    frames.feed((TEXT + CLOSE)[passed:])
    assert frames.close_code == 1000


def test_a_close_whose_first_byte_has_passed_is_not_held_back_any_more() -> None:
    frames = fed(CLOSE[:1])
    assert frames.feed_until(CLOSE[1:], Boundary.CLOSE) is None
    assert frames.close_complete


@pytest.mark.parametrize("mask", [None, MASK])
def test_our_close_is_read_by_wsproto_as_it_was_meant(mask: bytes | None) -> None:
    reader = Connection(ConnectionType.CLIENT if mask is None else ConnectionType.SERVER)
    reader.receive_data(close_frame(1001, "going away", mask))
    (event,) = reader.events()
    assert event == CloseConnection(code=1001, reason="going away")


def test_our_close_is_masked_towards_a_backend() -> None:
    assert close_frame(1001, "", MASK) == b"\x88\x82" + MASK + bytes((0x03 ^ 1, 0xE9 ^ 2))


def test_a_reason_of_more_than_123_bytes_is_an_error() -> None:
    assert len(close_frame(1001, "é" * 61, None)) == 2 + 124
    with pytest.raises(ValueError, match="123"):
        close_frame(1001, "é" * 62, None)


sizes = st.sampled_from([0, 1, 2, 125, 126, 127, 1000]) | st.integers(0, 300)
messages = st.lists(
    st.one_of(
        sizes.map(lambda size: ("ping", [b"p" * min(size, 125)])),
        st.lists(sizes, min_size=1, max_size=4).map(lambda parts: ("message", [bytes(part) for part in parts])),
    ),
    max_size=6,
)


def written(sender: Connection, script: list[tuple[str, list[bytes]]], close: bool) -> bytes:
    """What wsproto sends for `script`, a ping after each fragment but the last."""
    stream = b""
    for kind, parts in script:
        if kind == "ping":
            stream += sender.send(Ping(payload=parts[0]))
            continue
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            stream += sender.send(BytesMessage(data=part, message_finished=last))
            if not last:
                stream += sender.send(Ping(payload=b"between"))
    return stream + (sender.send(CloseConnection(code=1001, reason="gone")) if close else b"")


class Compressed(Extension):
    """Lets RSV1 pass without inflating: wsproto is asked for the framing only."""

    name = "compressed"

    def offer(self) -> bool:
        return False

    def enabled(self) -> bool:
        return True

    def frame_inbound_header(
        self, proto: object, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        return RsvBits(True, False, False)


def ends(stream: bytes, client: bool) -> tuple[set[int], set[int]]:
    """The offsets behind which wsproto, fed byte by byte, stands between frames and between messages."""
    reader = FrameProtocol(client=not client, extensions=[Compressed()])
    between_frames, between_messages, message_open = {0}, {0}, False
    for offset in range(len(stream)):
        reader.receive_bytes(stream[offset : offset + 1])
        for event in reader.received_frames():
            if not event.frame_finished:
                continue
            if event.opcode.value < 8:
                message_open = not event.message_finished
            between_frames.add(offset + 1)
            if not message_open:
                between_messages.add(offset + 1)
    return between_frames, between_messages


def deflating() -> PerMessageDeflate:
    deflate = PerMessageDeflate()
    deflate.finalize("permessage-deflate")
    return deflate


@given(messages, st.booleans(), st.booleans(), st.booleans(), st.lists(st.integers(0, 4000), max_size=8))
def test_frames_end_where_wsproto_says(
    script: list[tuple[str, list[bytes]]], client: bool, deflated: bool, close: bool, cut_at: list[int]
) -> None:
    kind = ConnectionType.CLIENT if client else ConnectionType.SERVER
    stream = written(Connection(kind, [deflating()] if deflated else []), script, close)
    between_frames, between_messages = ends(stream, client)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cut_at)})
    frames = FrameTracker()
    for begin, end in zip([0, *places], places, strict=False):
        frames.feed(stream[begin:end])
        open_ = not frames.close_seen
        assert frames.at_frame_boundary == (open_ and end in between_frames)
        assert frames.at_message_boundary == (open_ and end in between_messages)
    assert not frames.lost
    assert frames.close_code == (1001 if close else None)
    for begin in places:
        for stop, wanted in ((Boundary.FRAME, between_frames), (Boundary.MESSAGE, between_messages)):
            frames = fed(stream[:begin])
            if frames.close_seen:
                continue
            goal = min((end for end in wanted if end >= begin), default=None)
            if close and goal == len(stream):
                continue  # the Close comes first: see above
            found = frames.feed_until(stream[begin:], stop)
            assert found == (None if goal is None else goal - begin)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_no_bytes_at_all_make_it_fail_or_see_the_cuts(data: bytes, cut_at: list[int]) -> None:
    whole = fed(data)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cut_at)})
    pieces = fed(*(data[begin:end] for begin, end in zip([0, *places], places, strict=False)))
    for name in ("frames", "messages", "lost", "close_seen", "close_complete", "close_code", "close_reason"):
        assert getattr(whole, name) == getattr(pieces, name)
    assert whole.at_frame_boundary == pieces.at_frame_boundary
    assert whole.at_message_boundary == pieces.at_message_boundary


@given(st.binary(max_size=200), st.sampled_from(STOPS))
def test_what_feed_until_passes_is_what_feed_would_have_seen(data: bytes, stop: Boundary) -> None:
    careful = FrameTracker()
    careful.feed(data[:1])
    passed = careful.feed_until(data[1:], stop)
    plain = fed(data if passed is None else data[: 1 + passed])
    assert (careful.frames, careful.messages, careful.lost) == (plain.frames, plain.messages, plain.lost)
    assert careful.at_message_boundary == plain.at_message_boundary
    if passed is not None:
        assert careful.at_frame_boundary
        assert not careful.close_seen
