import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis.strategies import binary, lists
from support.trio_test import trio_test

from lbproxy.model import BackendId
from lbproxy.supervise.output import (
    KEPT_ENDED,
    LINE_BYTES,
    RING_BYTES,
    RING_LINES,
    LineLimit,
    LineSplitter,
    OutputBook,
    OutputRing,
)

TEXT = b"one\r\ntwo\n\nthree"


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_lines_are_the_same_at_every_cut(cut):
    splitter = LineSplitter()
    assert splitter.feed(TEXT[:cut]) + splitter.feed(TEXT[cut:]) + splitter.end() == [b"one", b"two", b"", b"three"]


@given(lists(binary(max_size=50)))
def test_nothing_is_lost_and_nothing_is_added(pieces):
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.end()
    assert b"".join(lines).replace(b"\r", b"") == b"".join(pieces).replace(b"\n", b"").replace(b"\r", b"")


def test_a_line_without_end_is_split_and_takes_bounded_memory():
    splitter = LineSplitter()
    lines = [line for _ in range(100) for line in splitter.feed(b"x" * 1000)]
    assert {len(line) for line in lines} == {LINE_BYTES}
    assert sum(map(len, lines)) + sum(map(len, splitter.end())) == 100_000


def test_a_long_line_with_an_end_is_split_too():
    assert [len(line) for line in LineSplitter().feed(b"x" * (LINE_BYTES + 1) + b"\n")] == [LINE_BYTES, 1]


@trio_test
async def test_the_ring_keeps_the_last_thousand_lines_and_counts_all():
    ring = OutputRing()
    ring.add([b"%d" % n for n in range(RING_LINES + 500)])
    assert ring.newest == RING_LINES + 500
    lines = ring.since(0)
    assert len(lines) == RING_LINES
    assert (lines[0].number, lines[0].text) == (501, "500")
    assert [line.text for line in ring.last(2)] == ["1498", "1499"]
    assert [line.number for line in ring.since(1498)] == [1499, 1500]
    assert ring.last(10, since=1499)[0].number == 1500
    assert ring.last(0) == []


@trio_test
async def test_long_lines_take_bounded_memory():
    ring = OutputRing()
    for _ in range(1000):
        ring.add([b"x" * LINE_BYTES])
    assert sum(len(line.text) for line in ring.since(0)) <= RING_BYTES


@trio_test
async def test_rubbish_is_shown_with_backslashes():
    ring = OutputRing()
    ring.add([b"caf\xc3\xa9 \xff\xfe"])
    assert ring.last(1)[0].text == "café \\xff\\xfe"


@trio_test
async def test_a_follower_is_woken_by_a_line():
    ring = OutputRing()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ring.wait_newer, 0)
        await trio.testing.wait_all_tasks_blocked()
        ring.add([b"hello"])


@trio_test
async def test_the_book_tells_of_lines_in_any_ring():
    book = OutputBook()
    ring = book.ring(BackendId("web", 1, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(book.wait_changed)
        await trio.testing.wait_all_tasks_blocked()
        ring.add([b"hello"])


@trio_test
async def test_the_book_keeps_what_lives_and_the_last_that_ended_of_a_slot():
    book = OutputBook()
    lives, other = BackendId("web", 1, 1), BackendId("web", 2, 1)
    book.ring(lives)
    book.ring(other)
    for number in range(2, 10):
        book.ring(BackendId("web", 1, number))
        book.retire(BackendId("web", 1, number))
    kept = [id.generation for id, _ in book.rings("web", 1)]
    assert kept == [1, *range(10 - KEPT_ENDED, 10)]
    assert [id for id, _ in book.rings(slot=2)] == [other]
    assert book.rings("api") == []
    assert [id for id, _ in book.rings(generation=9)] == [BackendId("web", 1, 9)]


@trio_test
async def test_a_generation_that_comes_back_finds_its_lines():
    book = OutputBook()
    book.ring(BackendId("web", 1, 1)).add([b"old"])
    book.ring(BackendId("web", 1, 2))
    assert book.ring(BackendId("web", 1, 1)).last(1)[0].text == "old"


def test_an_limit_holds_back_what_is_over_and_says_how_much():
    limit = LineLimit(lambda: 3)
    assert limit.report_at == float("inf")
    assert limit.next_second(10.0) == 0
    assert limit.take([b"1", b"2"]) == [b"1", b"2"]
    assert limit.take([b"3", b"4", b"5"]) == [b"3"]
    assert limit.report_at == 11.0
    assert limit.next_second(10.9) == 0
    assert limit.next_second(11.0) == 2
    assert limit.take([b"6"]) == [b"6"]
    assert limit.next_second(12.5) == 0
