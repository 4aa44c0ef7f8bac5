"""Readiness, deadlines and mistakes: what the reactor owes to those who are registered with it."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from support.trio_test import trio_test

from lbproxy.telemetry.events import Event, Notice
from lbproxy.worker.io.reactor import LINGER_S, NEVER, READ, TICK_S, TURN_S, WRITE, FunctionHandler, Reactor


class Item:
    """Something with a deadline, or a descriptor."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.deadline = NEVER
        self.queued_at = NEVER
        self.fired = 0
        self.masks: list[int] = []
        self.aborted = 0
        self._act = act

    def on_deadline(self) -> None:
        self.fired += 1
        self._act()

    def on_ready(self, mask: int) -> None:
        self.masks.append(mask)
        self._act()

    def abort(self) -> None:
        self.aborted += 1


def fail() -> None:
    raise RuntimeError("a mistake")


class Running:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reactor = Reactor(self.events.append)


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    made = Running()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.reactor.run)
        await trio.testing.wait_all_tasks_blocked()
        yield made
        nursery.cancel_scope.cancel()
    made.reactor.close()


def still() -> Reactor:
    """Not running: the test is its loop, and its clock."""
    return Reactor(lambda event: None)


# Readiness


@trio_test
async def test_a_handler_is_told_what_is_ready() -> None:
    left, right = socket.socketpair()
    with left, right:
        async with running() as made:
            told = trio.Event()
            item = Item(told.set)
            made.reactor.register(left.fileno(), WRITE, item)
            await told.wait()
            made.reactor.modify(left.fileno(), READ)
            item.masks.clear()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert item.masks == []
            right.send(b"x")
            while not item.masks:
                await trio.lowlevel.checkpoint()
            made.reactor.unregister(left.fileno())
            assert all(mask & READ and not mask & WRITE for mask in item.masks)


@trio_test
async def test_who_has_left_is_not_called_any_more() -> None:
    left, right = socket.socketpair()
    with left, right:
        async with running() as made:
            item = Item()
            made.reactor.register(left.fileno(), READ, item)
            made.reactor.unregister(left.fileno())
            made.reactor.unregister(left.fileno())  # no error
            right.send(b"x")
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert item.masks == []


@trio_test
async def test_who_is_unregistered_by_a_neighbour_in_the_same_batch_is_not_called() -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    try:
        async with running() as made:
            fds = [pair[0].fileno() for pair in pairs]

            def take_all() -> None:
                for fd in fds:
                    made.reactor.unregister(fd)

            items = [Item(take_all), Item(take_all)]
            for pair in pairs:
                pair[1].send(b"x")
            for fd, item in zip(fds, items, strict=True):
                made.reactor.register(fd, READ, item)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert sorted(len(item.masks) for item in items) == [0, 1]
    finally:
        for pair in pairs:
            pair[0].close()
            pair[1].close()


@trio_test
async def test_a_handler_can_be_replaced() -> None:
    left, right = socket.socketpair()
    with left, right:
        async with running() as made:
            reactor, fd = made.reactor, left.fileno()
            second = Item(lambda: reactor.unregister(fd))
            first = Item(lambda: reactor.handle(fd, second))
            reactor.register(fd, READ, first)
            right.send(b"x")
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert (len(first.masks), len(second.masks)) == (1, 1)


@trio_test
async def test_busy_descriptors_do_not_starve_the_tasks() -> None:
    left, right = socket.socketpair()
    with left, right:
        async with running() as made:
            item = Item()
            made.reactor.register(left.fileno(), WRITE, item)  # always ready
            began = trio.current_time()
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            took_s = trio.current_time() - began
            made.reactor.unregister(left.fileno())
            assert item.masks
            assert took_s < 20 * 20 * TURN_S  # a turn each, on a machine that may be busy elsewhere


@trio_test
async def test_nobody_lingers_while_a_task_waits_for_its_turn() -> None:
    async with running() as made:
        made.reactor.tasks = 1
        left, right = socket.socketpair()
        with left, right:
            item = Item()
            made.reactor.register(left.fileno(), READ, item)
            right.send(b"x")
            while not item.masks:
                await trio.lowlevel.checkpoint()
            left.recv(1)
            began = trio.current_time()
            for _ in range(200):
                await trio.lowlevel.checkpoint()
            took_s = trio.current_time() - began
            made.reactor.unregister(left.fileno())
            assert took_s < 200 * LINGER_S  # what it would take at the least if each turn lingered


@pytest.mark.parametrize("passes", [False, True], ids=["itself", "a method"])
@trio_test
async def test_a_mistake_in_a_handler_ends_its_owner_and_nobody_else(passes: bool) -> None:
    left, right = socket.socketpair()
    with left, right:
        async with running() as made:
            reactor = made.reactor

            class Broken(Item):
                def abort(self) -> None:
                    super().abort()
                    reactor.unregister(left.fileno())

            broken = Broken(fail)
            whole = Item(lambda: reactor.unregister(right.fileno()))
            reactor.register(left.fileno(), WRITE, FunctionHandler(broken.on_ready) if passes else broken)
            reactor.register(right.fileno(), WRITE, whole)
            await trio.testing.wait_all_tasks_blocked()
            assert broken.aborted == len(whole.masks) == 1
            (event,) = made.events
            assert isinstance(event, Notice)
            assert "a mistake" in event.text


@trio_test
async def test_an_abort_that_fails_is_said_too() -> None:
    async with running() as made:

        class Hopeless(Item):
            def abort(self) -> None:
                fail()

        made.reactor.arm(Hopeless(fail), 0.0)
        await trio.sleep(2 * TICK_S)
        assert len(made.events) == 2


@trio_test
async def test_what_is_deferred_runs_soon_and_may_defer_itself_without_starving_anybody() -> None:
    async with running() as made:
        ran = 0

        def again() -> None:
            nonlocal ran
            ran += 1
            if ran < 50:
                made.reactor.defer(again)

        made.reactor.defer(again)
        made.reactor.defer(fail)
        left, right = socket.socketpair()
        with left, right:
            item = Item(lambda: made.reactor.unregister(left.fileno()))
            made.reactor.register(left.fileno(), WRITE, item)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert ran == 50
        assert item.masks
        assert len(made.events) == 1


@trio_test
async def test_what_a_task_defers_runs_although_nothing_else_happens() -> None:
    async with running() as made:
        for _ in range(3):
            ran = trio.Event()
            await trio.testing.wait_all_tasks_blocked(0.01)
            made.reactor.defer(ran.set)
            with trio.fail_after(5):
                await ran.wait()


# Deadlines


@trio_test
async def test_a_deadline_fires_once_not_early_and_at_most_a_tick_late() -> None:
    async with running() as made:
        fired = trio.Event()
        item = Item(fired.set)
        began = made.reactor.now = trio.current_time()
        made.reactor.arm(item, 0.15)
        await fired.wait()
        late = trio.current_time() - began - 0.15
        assert 0 <= late < TICK_S + 0.2
        await trio.sleep(2 * TICK_S)
        assert item.fired == 1


def test_a_deadline_that_is_put_off_fires_at_its_last_time() -> None:
    reactor, item = still(), Item()
    for reactor.now in range(10):
        reactor.arm(item, 5.0)
        reactor.fire_due()
    reactor.now = 13.9
    reactor.fire_due()
    assert item.fired == 0
    reactor.now = 14.0
    reactor.fire_due()
    assert item.fired == 1


def test_a_deadline_that_comes_sooner_fires_sooner() -> None:
    reactor, item = still(), Item()
    reactor.arm(item, 60.0)
    reactor.arm(item, 1.0)
    reactor.now = 1.0
    reactor.fire_due()
    assert item.fired == 1
    reactor.now = 100.0
    reactor.fire_due()
    assert item.fired == 1


def test_who_is_disarmed_never_fires_and_can_be_armed_again() -> None:
    reactor, item = still(), Item()
    reactor.arm(item, 1.0)
    reactor.disarm(item)
    reactor.now = 2.0
    reactor.fire_due()
    assert item.fired == 0
    reactor.arm(item, 1.0)
    reactor.now = 3.0
    reactor.fire_due()
    assert item.fired == 1


def test_a_deadline_may_arm_itself_again() -> None:
    reactor = still()
    item = Item(lambda: reactor.arm(item, 1.0))
    reactor.arm(item, 1.0)
    for reactor.now in range(1, 6):
        reactor.fire_due()
    assert item.fired == 5


def test_connections_that_come_and_go_do_not_pile_up() -> None:
    reactor = still()
    staying = Item()
    reactor.arm(staying, 60.0)
    for number in range(20_000):
        reactor.now = number / 1000
        item = Item()
        reactor.arm(item, 60.0)
        reactor.disarm(item)
    assert len(reactor._heap) < 1000
    reactor.now = 60.0
    reactor.fire_due()
    assert staying.fired == 1


def test_many_who_leave_while_deadlines_fire_take_nobody_with_them() -> None:
    reactor = still()
    leaving, patient = [Item() for _ in range(2000)], Item()

    def leave() -> None:
        for item in leaving:
            reactor.disarm(item)

    first, second = Item(leave), Item()
    reactor.arm(first, 1.0)
    reactor.arm(second, 1.0)
    reactor.arm(patient, 1.5)
    reactor.arm(patient, 3.0)  # its entry is put off behind `first`, in the same turn
    for item in leaving:
        reactor.arm(item, 60.0)
    for reactor.now in (2.0, 2.5):
        reactor.fire_due()
    assert (first.fired, second.fired, patient.fired) == (1, 1, 0)
    reactor.now = 3.0
    reactor.fire_due()
    assert patient.fired == 1


steps = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["arm", "disarm", "wait"]), st.integers(0, 80)), max_size=60
)


@given(steps)
def test_deadlines_are_those_of_a_table(script: list[tuple[int, str, int]]) -> None:
    reactor, items = still(), [Item() for _ in range(5)]
    due: dict[int, float] = {}
    fired = [0] * 5
    for which, step, amount in script:
        if step == "arm":
            reactor.arm(items[which], float(amount))
            due[which] = reactor.now + amount
        elif step == "disarm":
            reactor.disarm(items[which])
            due.pop(which, None)
        else:
            reactor.now += amount
            reactor.fire_due()
            for number in [number for number, at in due.items() if at <= reactor.now]:
                fired[number] += 1
                del due[number]
        assert [item.fired for item in items] == fired


@trio_test
async def test_the_time_of_day_is_that_of_a_clock_reading() -> None:
    async with running() as made:
        assert abs(made.reactor.wall(trio.current_time() + 5) - made.reactor.wall(trio.current_time()) - 5) < 0.1
        assert made.reactor.wall(trio.current_time()) > 1_700_000_000
