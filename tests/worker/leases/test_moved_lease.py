"""A lease as a value: what is left of its drain goes with it, and any worker can end the drain."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import trio
from support.routing import ONE, TWO, Bench, routing, view
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.link.moved import MovedLease
from lbproxy.model import LeaseKind
from lbproxy.settings import DrainSettings
from lbproxy.worker.leases.moved_lease import lease_of, tell_at, value_of

DRAIN = DrainSettings(request_s=9.0, tcp_s=20.0, websocket_s=10.0, goodbye_s=2.0)


@pytest.fixture
def old() -> Iterator[Bench]:
    with routing() as made:
        made.drain = DRAIN
        yield made


@pytest.fixture
def new() -> Iterator[Bench]:
    with routing() as made:
        made.drain = DRAIN
        yield made


@trio_test(clock="autojump")
async def test_a_lease_keeps_its_age_and_counts_in_the_row_of_its_new_worker(old: Bench, new: Bench) -> None:
    old.publish(ONE)
    new.publish(ONE, TWO)
    lease = old.must_claim(LeaseKind.WEBSOCKET)
    await trio.sleep(5)
    value = value_of(old.router, lease)
    assert value == MovedLease(ONE, pytest.approx(5))
    taken = lease_of(new.router, value, LeaseKind.WEBSOCKET)
    assert taken.started == pytest.approx(lease.started)
    assert new.leases(1) == new.leases(1, Counter.WEBSOCKET) == 1
    new.router.release(taken)
    assert new.leases(1) == new.leases(1, Counter.WEBSOCKET) == 0
    assert new.drained == []


@trio_test(clock="autojump")
async def test_a_backend_is_found_by_its_id_wherever_its_cell_is(new: Bench) -> None:
    new.publish(view(1, cell=7))
    taken = lease_of(new.router, MovedLease(ONE, 1.0), LeaseKind.TCP)
    assert taken.backend.cell == 7
    assert new.leases(7) == 1


@trio_test(clock="autojump")
async def test_a_draining_backend_that_the_new_worker_never_had_drains_on(old: Bench, new: Bench) -> None:
    old.publish(ONE, TWO)
    leases = [old.must_claim(LeaseKind.TCP) for _ in range(2)]
    lease = next(lease for lease in leases if lease.backend == ONE)
    old.publish(TWO)
    new.publish(TWO)
    await trio.sleep(5)
    value = value_of(old.router, lease)
    assert value.drain is not None
    assert (value.drain.tcp_s, value.drain.request_s) == (pytest.approx(15), pytest.approx(4))
    cut_at = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(new.router.run_drains)
        taken = lease_of(new.router, value, LeaseKind.TCP)
        taken.on_cut = lambda: cut_at.append(trio.current_time())
        began = trio.current_time()
        await trio.sleep(16)
        nursery.cancel_scope.cancel()
    assert cut_at == [pytest.approx(began + 15, abs=0.1)]
    assert new.drained == []
    new.router.release(taken)
    assert new.drained == [("web.1@1", new.epoch)]
    new.publish(ONE, TWO)
    assert new.must_claim().backend in (ONE, TWO)


@trio_test(clock="autojump")
async def test_a_websocket_is_told_goodbye_when_it_would_have_been(old: Bench, new: Bench) -> None:
    old.publish(ONE)
    new.publish()
    leases = [old.must_claim(LeaseKind.WEBSOCKET) for _ in range(4)]
    told: list[tuple[int, float]] = []
    for number, lease in enumerate(leases):
        old.router.change_kind(lease, LeaseKind.WEBSOCKET, lambda ends, number=number: told.append((number, ends)))  # type: ignore[misc]
    old.publish()
    values = [value_of(old.router, lease) for lease in reversed(leases)]
    planned = sorted(value.goodbye_in_s or 0.0 for value in values)
    assert [later - sooner for sooner, later in pairwise(planned)] == [pytest.approx(2.5)] * 3
    began, heard = trio.current_time(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(new.router.run_drains)
        for value in values:
            taken = lease_of(new.router, value, LeaseKind.WEBSOCKET)
            taken.leases.change(
                taken,
                LeaseKind.WEBSOCKET,
                lambda ends: heard.append(trio.current_time() - began),
                tell_at=tell_at(value),
            )
        await trio.sleep(11)
        nursery.cancel_scope.cancel()
    assert heard == [pytest.approx(at, abs=0.1) for at in planned]
    assert told == []


@trio_test(clock="autojump")
async def test_a_backend_that_left_the_new_table_while_its_lease_was_under_way_drains_by_its_pool(new: Bench) -> None:
    new.publish(TWO)
    taken = lease_of(new.router, MovedLease(ONE, 0.0), LeaseKind.TCP)
    assert taken.leases.left_s(taken, trio.current_time()) == pytest.approx(20)
    second = lease_of(new.router, MovedLease(ONE, 0.0), LeaseKind.TCP)
    assert second.leases is taken.leases
    for lease in (taken, second):
        new.router.release(lease)
    assert new.drained == [("web.1@1", new.epoch)]


@trio_test(clock="autojump")
async def test_a_backend_that_nobody_knows_and_a_cell_of_another_are_refused(new: Bench) -> None:
    new.publish(TWO)
    with pytest.raises(LookupError, match=r"other\.1@1 is not in the table"):
        lease_of(new.router, MovedLease(view(1, pool="other"), 0.0), LeaseKind.TCP)
    with pytest.raises(LookupError, match=r"web\.9@1: its cell is another backend's"):
        lease_of(new.router, MovedLease(view(9, cell=2), 0.0, DRAIN), LeaseKind.TCP)
    assert new.leases(2) == 0
