"""The place of a direction in its frames, as a value: a tracker that begins there goes on as the first would."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.websocket import Boundary, FramePosition, FrameTracker, close_frame

MASK = b"\x01\x02\x03\x04"


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A message in fragments with pings between them, masked or not, with every size of a length."""
    data = b""
    for number in range(count := draw(st.integers(1, 4))):
        if draw(st.booleans()):
            data += b"\x89\x01?"
        size = draw(st.sampled_from((0, 1, 125, 126, 300, 65536)))
        first = bytes(((0x80 if number == count - 1 else 0) | (0 if number else 1),))
        masked = draw(st.booleans())
        bit = 0x80 if masked else 0
        if size < 126:
            head = first + bytes((bit | size,))
        elif size < 65536:
            head = first + bytes((bit | 126,)) + size.to_bytes(2, "big")
        else:
            head = first + bytes((bit | 127,)) + size.to_bytes(8, "big")
        data += head + (MASK if masked else b"") + b"x" * size
    return data


@given(data=frames(), cuts=st.lists(st.floats(0, 1), max_size=6))
def test_a_tracker_that_is_moved_anywhere_tells_what_one_tells_that_stayed(data: bytes, cuts: list[float]) -> None:
    stays, moves = FrameTracker(), FrameTracker()
    places = sorted({round(cut * len(data)) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(places):
        stays.feed(data[start:end])
        moves.feed(data[start:end])
        position = moves.position
        assert position is not None
        moves = FrameTracker.at(position)
        assert moves.position == stays.position == position
        assert moves.at_frame_boundary == stays.at_frame_boundary
        assert moves.at_message_boundary == stays.at_message_boundary
    assert moves.at_message_boundary
    assert moves.feed_until(close_frame(1000, "", None), Boundary.MESSAGE) == 0


def test_a_direction_that_has_begun_its_close_is_nowhere_to_go_on_from() -> None:
    close = close_frame(1000, "bye", MASK)
    for cut in range(len(close) + 1):
        tracker = FrameTracker()
        tracker.feed(close[:cut])
        assert (tracker.position is None) == tracker.close_seen == (cut >= 6)


def test_a_direction_that_is_lost_stays_lost() -> None:
    tracker = FrameTracker()
    tracker.feed(b"\xff\xff")
    assert tracker.position is not None
    assert FrameTracker.at(tracker.position).lost


@pytest.mark.parametrize(
    "wrong", [{"left": -1}, {"left": 1 << 63}, {"head": "8"}, {"head": "81" * 14}, {"head": "81", "left": 1}]
)
def test_a_place_where_no_tracker_can_stand_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        FrameTracker.at(replace(FramePosition(0, "", False, False, 0, 0), **wrong))  # type: ignore[arg-type]
