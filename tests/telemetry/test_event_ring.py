"""lbproxy/telemetry/event_ring.py: numbers that grow, and readers that fall behind."""

import trio
from support.trio_test import trio_test

from lbproxy.telemetry.event_ring import EventRing
from lbproxy.telemetry.events import Notice


def filled(count: int, size: int = 4) -> EventRing:
    """Ids from 100000; event n happened at second n."""
    ring = EventRing(size, lambda: 100.0)
    for number in range(count):
        ring.add(Notice(str(number)), number)
    return ring


def test_ids_begin_with_the_time_so_that_they_grow_over_a_restart() -> None:
    assert (filled(0).newest_id, filled(1).newest_id, filled(3).newest_id) == (99_999, 100_000, 100_002)


def test_a_reader_gets_what_is_newer_than_what_it_has() -> None:
    ring = filled(6)
    assert [numbered.id for numbered in ring.after(100_003)] == [100_004, 100_005]
    assert [numbered.id for numbered in ring.after(0, most=2)] == [100_002, 100_003]
    assert ring.after(100_005) == []
    assert ring.after(10**9) == []


def test_what_a_slow_reader_lost_shows_in_the_numbers() -> None:
    ring = filled(6)
    assert [ring.lost_after(id) for id in (0, 99_999, 100_000, 100_001, 100_005)] == [2, 2, 1, 0, 0]
    assert filled(0).lost_after(0) == 0


def test_a_time_and_a_count_lead_to_an_id() -> None:
    ring = filled(6)
    assert [ring.since(at) for at in (0, 3.5, 5, 9)] == [100_001, 100_003, 100_004, 100_005]
    assert [ring.last(count) for count in (0, 1, 4, 50)] == [100_005, 100_004, 100_001, 100_001]


@trio_test
async def test_a_reader_waits_for_a_newer_event_or_the_end() -> None:
    ring = filled(1)
    await ring.wait_newer(99_999)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ring.wait_newer, 100_000)
        await trio.testing.wait_all_tasks_blocked()
        ring.add(Notice("next"), 1.0)
    assert not ring.end()
    await ring.wait_newer(ring.newest_id)


def test_a_ring_goes_on_behind_that_of_an_earlier_program() -> None:
    before, ring = filled(6), EventRing(now=lambda: 500.0)
    ring.add(Notice("own"), 9.0)
    ring.restore(before.first_id, [(one.at, one.event) for one in before.after(before.last(2))], before.newest_id)
    assert [one.id for one in ring.after(0)] == [100_004, 100_005, 100_006]
    assert [one.id for one in ring.after(100_005)] == [100_006], "a reader goes on where it was"
    assert ring.lost_after(100_001) == 2
