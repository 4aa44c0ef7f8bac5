"""Who waits for a backend: in order, bounded, and never forgotten."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from support.routing import ONE, THREE, TWO, Bench, routing
from support.trio_test import trio_test

from lbproxy.errors import ProxyError
from lbproxy.link.grid import Counter
from lbproxy.model import BackendView, LeaseKind, RoutingTable
from lbproxy.settings import PoolLimits
from lbproxy.worker.leases.choice import SKIP_S
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.leases.router import RECHECK_S, Router

settled = trio.testing.wait_all_tasks_blocked


class Counting(Router):
    claims = 0

    def claim(self, *args: Any, **named: Any) -> Lease | None:
        self.claims += 1
        return super().claim(*args, **named)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with routing(Counting) as made:
        yield made


class Waiting:
    """One who waits for a lease in a task, and can be called off."""

    def __init__(self, bench: Bench, nursery: trio.Nursery, kind: LeaseKind = LeaseKind.REQUEST) -> None:
        self.lease: Lease | None = None
        self.error: ProxyError | None = None
        self.scope = trio.CancelScope()
        self.since = trio.current_time()
        self.waited_s: float | None = None
        nursery.start_soon(self._wait, bench, kind)

    async def _wait(self, bench: Bench, kind: LeaseKind) -> None:
        with self.scope:
            try:
                self.lease = await bench.wait_claim(kind)
            except ProxyError as exc:
                self.error = exc
            self.waited_s = trio.current_time() - self.since


async def line_up(bench: Bench, nursery: trio.Nursery, count: int) -> list[Waiting]:
    """In this order."""
    waiting = []
    for _ in range(count):
        waiting.append(Waiting(bench, nursery))
        await settled()
    return waiting


@trio_test(clock="autojump")
async def test_who_waits_gets_the_first_backend_there_is(bench: Bench) -> None:
    bench.publish()
    async with trio.open_nursery() as nursery:
        waiting = await line_up(bench, nursery, 3)
        assert bench.router.waiting("web") == 3
        bench.publish(ONE)
        await settled()
        assert [who.lease and who.lease.backend for who in waiting] == [ONE] * 3
        assert [who.waited_s for who in waiting] == [0, 0, 0]
    assert bench.router.waiting("web") == 0
    assert bench.leases(1) == 3


@trio_test(clock="autojump")
async def test_nobody_waits_who_need_not(bench: Bench) -> None:
    bench.publish(ONE)
    assert (await bench.wait_claim()).backend == ONE


@trio_test(clock="autojump")
async def test_the_queue_is_bounded_by_count(bench: Bench) -> None:
    bench.limits = PoolLimits(queue_size=2)
    bench.publish()
    async with trio.open_nursery() as nursery:
        waiting = await line_up(bench, nursery, 3)
        assert bench.router.waiting("web") == 2
        error = waiting[2].error
        assert error is not None
        assert (error.status, error.token) == (503, "connection_limit_reached")
        nursery.cancel_scope.cancel()


@trio_test(clock="autojump")
async def test_who_could_not_reach_what_it_claimed_goes_on_waiting_but_not_for_ever(bench: Bench) -> None:
    bench.limits = PoolLimits(queue_timeout_s=3.0)
    bench.publish(ONE)
    since = trio.current_time()
    tries = 0

    async def try_for_ever() -> None:
        nonlocal tries
        while True:
            lease = await bench.router.wait_claim("web", LeaseKind.REQUEST, None, since)
            tries += 1
            bench.router.skip(lease.backend.id)
            bench.router.release(lease)

    with pytest.raises(ProxyError, match="no backend"):
        await try_for_ever()
    assert trio.current_time() - since == 3.0
    assert 1 < tries <= 1 + 3 / SKIP_S


@trio_test(clock="autojump")
async def test_a_queue_of_none_refuses_at_once_what_cannot_be_served(bench: Bench) -> None:
    bench.limits = PoolLimits(queue_size=0)
    bench.publish()
    with pytest.raises(ProxyError, match="full"):
        await bench.wait_claim()
    bench.publish(ONE)
    assert (await bench.wait_claim()).backend == ONE


@pytest.mark.parametrize("skipped", [False, True])
@trio_test(clock="autojump")
async def test_the_queue_is_bounded_by_age(bench: Bench, skipped: bool) -> None:
    bench.limits = PoolLimits(connections=1, queue_timeout_s=7)
    bench.publish(ONE)
    if skipped:
        bench.router.skip(ONE.id)
    else:
        bench.must_claim()
    bench.grid.values[bench.grid.base(1, 1) + Counter.LEASES] = 1
    async with trio.open_nursery() as nursery:
        first = Waiting(bench, nursery)
        await trio.sleep(3)
        second = Waiting(bench, nursery)
        await trio.sleep(3)
        bench.publish(ONE)  # a table makes nobody younger
    for who in (first, second):
        assert who.waited_s == pytest.approx(7)
        assert who.error is not None
        assert (who.error.status, who.error.token) == (503, "connection_limit_reached")


@trio_test(clock="autojump")
async def test_who_waits_for_a_pool_that_is_gone_is_told_at_once(bench: Bench) -> None:
    bench.publish()
    async with trio.open_nursery() as nursery:
        (who,) = await line_up(bench, nursery, 1)
        bench.router.apply(RoutingTable(9, "", (), (), ()))
        await settled()
        assert who.error is not None
        assert who.waited_s == 0
    with pytest.raises(ProxyError, match="gone"):
        await bench.wait_claim()


@trio_test(clock="autojump")
async def test_room_is_given_in_the_order_of_arrival(bench: Bench) -> None:
    bench.limits = PoolLimits(connections=1)
    bench.publish(ONE)
    held = bench.must_claim()
    async with trio.open_nursery() as nursery:
        waiting = await line_up(bench, nursery, 5)
        for who in waiting:
            bench.router.release(held)
            assert bench.claim() is None, "somebody came between"
            await settled()
            assert who.lease is not None
            held = who.lease
        assert bench.leases(1) == 1


@trio_test(clock="autojump")
async def test_several_places_go_to_the_first_of_the_queue(bench: Bench) -> None:
    bench.limits = PoolLimits(connections=2)
    bench.publish()
    async with trio.open_nursery() as nursery:
        waiting = await line_up(bench, nursery, 6)
        bench.publish(ONE, TWO)
        await settled()
        assert [who.lease is not None for who in waiting] == [True] * 4 + [False] * 2
        nursery.cancel_scope.cancel()


@trio_test(clock="autojump")
async def test_a_place_given_to_somebody_who_is_just_leaving_goes_to_the_next(bench: Bench) -> None:
    bench.limits = PoolLimits(connections=1)
    bench.publish(ONE)
    held = bench.must_claim()
    async with trio.open_nursery() as nursery:
        first, second, third = await line_up(bench, nursery, 3)
        first.scope.cancel()
        bench.router.release(held)
        second.scope.cancel()
        await settled()
        assert first.lease is None
        assert [who for who in (second, third) if who.lease is not None]
        nursery.cancel_scope.cancel()
    assert bench.leases(1) == 1
    assert bench.router.waiting("web") == 0


@trio_test(clock="autojump")
async def test_room_that_another_worker_frees_is_found(bench: Bench) -> None:
    bench.limits = PoolLimits(connections=1)
    bench.publish(ONE)
    there = bench.grid.base(1, 1) + Counter.LEASES
    bench.grid.values[there] = 1
    async with trio.open_nursery() as nursery:
        (who,) = await line_up(bench, nursery, 1)
        await trio.sleep(1)
        assert who.lease is None
        bench.grid.values[there] = 0
        await trio.sleep(RECHECK_S)
        await settled()
        assert who.lease is not None


@trio_test(clock="autojump")
async def test_a_queue_that_nobody_can_serve_costs_little(bench: Bench) -> None:
    """Two hundred who wait for room that another worker may free do not look two hundred times as often as one."""
    bench.limits = PoolLimits(connections=1, queue_timeout_s=1.0)
    bench.publish(ONE)
    bench.must_claim()
    async with trio.open_nursery() as nursery:
        waiting = [Waiting(bench, nursery) for _ in range(200)]
    assert all(who.error is not None for who in waiting)
    assert isinstance(bench.router, Counting)
    assert bench.router.claims < 400 + 10 / RECHECK_S


@trio_test(clock="autojump")
async def test_a_backend_that_is_passed_over_is_asked_again_by_those_who_wait(bench: Bench) -> None:
    bench.publish(ONE)
    bench.router.skip(ONE.id)
    async with trio.open_nursery() as nursery:
        waiting = await line_up(bench, nursery, 2)
        await trio.sleep(SKIP_S + 0.01)
        await settled()
        assert all(who.lease is not None for who in waiting)
        assert waiting[0].waited_s == pytest.approx(SKIP_S)


@trio_test(clock="autojump")
async def test_work_that_ends_on_a_draining_backend_calls_nobody_there(bench: Bench) -> None:
    bench.limits = PoolLimits(connections=1)
    bench.publish(ONE)
    held = bench.must_claim()
    bench.publish()
    async with trio.open_nursery() as nursery:
        (who,) = await line_up(bench, nursery, 1)
        bench.router.release(held)
        await settled()
        assert who.lease is None
        nursery.cancel_scope.cancel()


# Any order of events

BACKENDS = (ONE, TWO, THREE)
LIMIT = 2
steps = st.one_of(
    st.tuples(st.just("publish"), st.sets(st.sampled_from(range(3)))),
    st.tuples(st.just("wait"), st.sampled_from([LeaseKind.REQUEST, LeaseKind.TCP])),
    st.tuples(st.just("claim"), st.none()),
    st.tuples(st.just("release"), st.integers(0, 9)),
    st.tuples(st.just("call off"), st.integers(0, 9)),
    st.tuples(st.sampled_from(["release and call off", "call off and release"]), st.none()),
    st.tuples(st.just("skip"), st.sampled_from(range(3))),
    st.tuples(st.just("elsewhere"), st.tuples(st.sampled_from(range(3)), st.integers(0, LIMIT))),
    st.tuples(st.just("sleep"), st.sampled_from([0.01, 0.06, 1.1])),
)


class Story:
    """A run of a router, with what must hold after every step."""

    def __init__(self, bench: Bench, nursery: trio.Nursery) -> None:
        self.bench = bench
        self.nursery = nursery
        self.held: list[Lease] = []
        self.waiting: list[Waiting] = []
        self.called_off: list[Waiting] = []
        self.left: dict[str, int] = {}  # who is out of the table, and since which epoch

    def present(self) -> tuple[BackendView, ...]:
        pool = self.bench.router.pool("web")
        return pool.backends if pool is not None else ()

    def publish(self, slots: set[int]) -> None:
        before = {str(view.id) for view in self.present()}
        self.bench.publish(*(BACKENDS[slot] for slot in sorted(slots)))
        now = {str(view.id) for view in self.present()}
        for name in now:
            self.left.pop(name, None)
        self.left |= dict.fromkeys(before - now, self.bench.epoch)

    def step(self, name: str, fact: Any) -> None:
        bench = self.bench
        match name:
            case "publish":
                self.publish(fact)
            case "wait":
                self.waiting.append(Waiting(bench, self.nursery, fact))
            case "claim":
                if not bench.router.waiting("web") and (lease := bench.claim()) is not None:
                    self.held.append(lease)
            case "release" if self.held:
                bench.router.release(self.held.pop(fact % len(self.held)))
            case "call off" if self.waiting:
                self.call_off(fact % len(self.waiting))
            case "release and call off" if self.waiting and self.held:
                bench.router.release(self.held.pop(0))
                self.call_off(0)
            case "call off and release" if self.waiting and self.held:
                self.call_off(0)
                bench.router.release(self.held.pop(0))
            case "skip":
                bench.router.skip(BACKENDS[fact].id)
            case "elsewhere":
                slot, leases = fact
                bench.grid.values[bench.grid.base(1, BACKENDS[slot].cell) + Counter.LEASES] = leases

    def call_off(self, place: int) -> None:
        who = self.waiting.pop(place)
        who.scope.cancel()
        self.called_off.append(who)

    def check(self) -> None:
        bench = self.bench
        self.held += [who.lease for who in self.called_off if who.lease is not None]  # it had been called before
        self.called_off.clear()
        served = [who for who in self.waiting if who.lease is not None]
        assert served == self.waiting[: len(served)], "out of order"
        del self.waiting[: len(served)]
        for who in served:
            assert who.lease is not None
            assert who.lease.backend in self.present(), "a lease on a backend that is absent"
            self.held.append(who.lease)
        for view in BACKENDS:
            ours = sum(lease.backend == view for lease in self.held)
            assert bench.grid.values[bench.grid.base(0, view.cell)] == ours
            assert ours <= LIMIT
        busy = {str(lease.backend.id) for lease in self.held}
        for name in list(self.left):
            said = [epoch for drained, epoch in bench.drained if drained == name and epoch >= self.left[name]]
            assert len(said) == (name not in busy), "drained is said once, when nothing is left"

    async def look_for_forgotten(self) -> None:
        """Long enough for everybody to look again: then nobody waits who could be served."""
        await trio.sleep(SKIP_S + RECHECK_S * (len(self.waiting) + 1))
        await settled()
        self.check()
        if self.waiting:
            assert self.bench.claim() is None, "forgotten"


@settings(max_examples=150)
@given(story=st.lists(steps, max_size=30))
def test_no_order_of_events_loses_a_lease_or_forgets_anybody(story: list[tuple[str, Any]]) -> None:
    async def main() -> None:
        with routing() as bench:
            bench.limits = PoolLimits(connections=LIMIT, queue_timeout_s=1e6)
            async with trio.open_nursery() as nursery:
                told = Story(bench, nursery)
                told.publish({0})
                for name, fact in story:
                    if name == "sleep":
                        await trio.sleep(fact)
                    told.step(name, fact)
                    await settled()
                    told.check()
                await told.look_for_forgotten()
                nursery.cancel_scope.cancel()
            for lease in told.held:
                bench.router.release(lease)
            for view in BACKENDS:
                assert bench.grid.values[bench.grid.base(0, view.cell)] == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
