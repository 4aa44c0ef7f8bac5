"""A reactor with nothing to do sleeps, and nobody who comes then can tell; one that works says how long others waited.

In real time: under a clock that jumps Trio's loop never rests.
"""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.worker.io.reactor import NEVER, TICK_S, WRITE, FunctionHandler, Reactor

SILENCE_S = 8 * TICK_S
SLACK_S = 0.2  # of a busy machine


class Counted(Reactor):
    """Knows how often deadlines were looked at."""

    looks = 0

    def fire_due(self) -> None:
        self.looks += 1
        super().fire_due()


class Item:
    def __init__(self) -> None:
        self.deadline = self.queued_at = NEVER
        self.fired_at: list[float] = []
        self.fired = trio.Event()

    def on_deadline(self) -> None:
        self.fired_at.append(trio.current_time())
        self.fired.set()


@asynccontextmanager
async def running() -> AsyncIterator[Counted]:
    reactor = Counted(lambda event: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await trio.sleep(2 * TICK_S)  # until it dozes
        yield reactor
        nursery.cancel_scope.cancel()
    reactor.close()


@trio_test
async def test_it_does_not_wake_up() -> None:
    async with running() as reactor:
        before = reactor.looks
        await trio.sleep(SILENCE_S)
        assert reactor.looks - before <= 2


@trio_test
async def test_who_comes_then_finds_the_clock_right() -> None:
    async with running() as reactor:
        for silence_s in (SILENCE_S, 0.3 * TICK_S, SILENCE_S):
            await trio.sleep(silence_s)
            assert 0 <= trio.current_time() - reactor.now <= TICK_S + SLACK_S


@trio_test
async def test_a_time_of_day_that_was_set_meanwhile_holds_for_who_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as reactor:
        monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
        await trio.sleep(SILENCE_S)
        assert reactor.wall(trio.current_time()) == pytest.approx(2_000_000_000, abs=SLACK_S + TICK_S)


@trio_test
async def test_a_deadline_is_kept_to_a_tick_in_it_and_behind_it() -> None:
    async with running() as reactor:
        far, near = Item(), Item()
        reactor.now = began = trio.current_time()
        reactor.arm(far, 1.0)
        await trio.sleep(0.6)  # a task arms the other one while the reactor sleeps
        reactor.arm(near, 0.05)
        await trio.sleep(0.8)
        (near_at,), (far_at,) = near.fired_at, far.fired_at
        assert 0.65 - TICK_S <= near_at - began <= 0.65 + TICK_S + SLACK_S
        assert 1.0 <= far_at - began <= 1.0 + TICK_S + SLACK_S


@trio_test
async def test_a_task_that_waits_for_the_same_moment_comes_first() -> None:
    """So a drain that cuts a lease is what cuts it, and counts it, although the relay has the same deadline."""
    async with running() as reactor:
        for _ in range(8):
            item = Item()
            reactor.now = trio.current_time()
            reactor.arm(item, 0.15)
            await trio.sleep_until(item.deadline)
            assert not item.fired_at
            await item.fired.wait()


@trio_test
async def test_it_does_so_as_well_when_the_thread_comes_too_late_for_both() -> None:
    async with running() as reactor:
        for late_s in (0.15, 0.2, 0.3):
            item = Item()
            reactor.now = trio.current_time()
            reactor.arm(item, 0.12)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work_soon, 0.1, late_s)
                await trio.sleep_until(item.deadline)
                assert not item.fired_at
            await item.fired.wait()


async def work_soon(delay_s: float, seconds: float) -> None:
    await trio.sleep(delay_s)
    work_for(seconds)


@trio_test
async def test_deadlines_one_behind_the_other_cost_a_look_for_each_tick_and_not_for_each_of_them() -> None:
    async with running() as reactor:
        items = [Item() for _ in range(500)]
        reactor.now = trio.current_time()
        for number, item in enumerate(items):
            reactor.arm(item, 0.2 + number / 1000)
        before = reactor.looks
        await trio.sleep(1.0)
        assert all(item.fired_at for item in items)
        assert reactor.looks - before <= 1.0 / TICK_S + 2


@trio_test
async def test_how_long_others_had_to_wait_is_known_until_somebody_has_read_it() -> None:
    left, right = socket.socketpair()
    with left, right:
        async with running() as reactor:
            reactor.longest_turn_s = reactor.longest_batch_s = 0.0
            done = trio.Event()

            def work(mask: int) -> None:
                work_for(0.03)
                reactor.unregister(left.fileno())
                reactor.defer(work_later)

            def work_later() -> None:
                work_for(0.02)
                done.set()

            reactor.register(left.fileno(), WRITE, FunctionHandler(work))
            await done.wait()
            assert 0.03 <= reactor.longest_batch_s <= reactor.longest_turn_s - 0.02
            reactor.longest_turn_s = reactor.longest_batch_s = 0.0
            await trio.sleep(2 * TICK_S)
            assert reactor.longest_batch_s == reactor.longest_turn_s == 0, "nobody waits for one who is idle"


def work_for(seconds: float) -> None:
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass
