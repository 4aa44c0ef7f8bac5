"""Where events end, whatever ends their lines and wherever the stream is cut."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.sse import EventTracker

BOM = b"\xef\xbb\xbf"
LINE = re.compile(rb"[^\r\n]*(\r\n|\n|\r)")


def boundaries(stream: bytes) -> set[int]:
    """The reference: line by line, with the whole stream in view."""
    at = len(BOM) if stream.startswith(BOM) else 0
    found = {0, at}
    behind_bom = at
    while line := LINE.match(stream, at):
        if line.start(1) == at:
            found.add(line.end())
        at = line.end()
    # A CR at the very end may be half of a CRLF, unless a bare CR ends the line before it.
    if (b"\n" + stream[behind_bom:]).endswith(b"\n\r"):
        found.discard(len(stream))
    return found


def after(*pieces: bytes) -> EventTracker:
    events = EventTracker()
    for piece in pieces:
        events.feed(piece)
    return events


def test_the_start_of_the_stream_is_a_boundary() -> None:
    assert after().at_boundary
    assert after(b"").at_boundary
    assert after().last_boundary(b"data: x\n") == 0
    assert after().last_boundary(b"") == 0


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_blank_line_ends_an_event_whatever_ends_its_lines(end: bytes) -> None:
    event = b"id: 1" + end + b"data: x" + end + end
    assert after(event).at_boundary
    assert after().last_boundary(event + b"data: y" + end) == len(event)
    assert not after(event + b"data: y" + end).at_boundary


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\r\n", b"\r\n\n"])
def test_every_mixture_of_line_ends_is_known_at_every_cut(end: bytes) -> None:
    stream = b"data: x" + end + b"data: y"
    for cut in range(len(stream) + 1):
        events = after(stream[:cut])
        assert events.at_boundary == (cut in boundaries(stream[:cut]))
        assert events.last_boundary(stream[cut:]) == (7 + len(end) - cut if cut <= 7 + len(end) else -1)


def test_one_line_end_is_no_boundary() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        assert not after(b"data: x" + end).at_boundary
        assert after(b"data: x").last_boundary(end + b"data: y" + end) == -1


def test_a_crlf_is_not_cut_in_the_middle() -> None:
    events = after(b"data: x\r\n\r")
    assert not events.at_boundary
    assert events.last_boundary(b"\ndata: y\r\n") == 1
    events.feed(b"\n")
    assert events.at_boundary


def test_a_cr_that_was_no_half_of_a_crlf_was_the_end_of_an_event() -> None:
    assert after(b"data: x\n\r").last_boundary(b"data: y") == 0


def test_a_stream_with_bare_crs_need_not_wait_for_its_next_byte() -> None:
    events = after(b"data: x\r\r")
    assert events.at_boundary
    assert events.last_boundary(b"\ndata: y") == 1


def test_an_earlier_boundary_is_found_before_an_undecided_cr() -> None:
    assert after(b"data: x").last_boundary(b"\n\n\r") == 2


def test_a_comment_is_as_good_as_an_event() -> None:
    assert after(b": ping\n\n").at_boundary


def test_behind_the_byte_order_mark_is_a_boundary_and_amid_it_is_none() -> None:
    assert [after(BOM[:size]).at_boundary for size in range(4)] == [True, False, False, True]
    assert [after(BOM[:size]).last_boundary(BOM[size:] + b"data") for size in range(4)] == [3, 2, 1, 0]
    assert after(BOM + b"\n").at_boundary
    assert not after(BOM, BOM).at_boundary


def test_half_a_byte_order_mark_is_text() -> None:
    assert not after(BOM[:2], b"\n").at_boundary
    assert after(BOM[:2], b"\n\n").at_boundary


def test_asking_changes_nothing() -> None:
    events = after(b"data: x\n")
    assert [events.last_boundary(b"\n") for _ in range(3)] == [1, 1, 1]
    assert not events.at_boundary


pieces = st.lists(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"\n\n", b"x", b"data: y", BOM, BOM[:1], BOM[1:]]), max_size=6
    ).map(b"".join),
    max_size=6,
)


@given(pieces)
def test_boundaries_are_those_of_the_reference_however_the_stream_is_cut(stream: list[bytes]) -> None:
    events = EventTracker()
    seen = b""
    for piece in stream:
        whole = seen + piece
        expected = max((end for end in boundaries(whole) if end >= len(seen)), default=-1)
        assert events.last_boundary(piece) == (expected - len(seen) if expected >= 0 else -1)
        events.feed(piece)
        seen = whole
        assert events.at_boundary == (len(seen) in boundaries(seen))
