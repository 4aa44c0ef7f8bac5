"""A paused pool: requests wait or are answered, sessions and leases go on."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio
import trio.testing
from support.routing import ONE, TWO, Bench, routing
from support.trio_test import trio_test

from lbproxy.errors import ProxyError
from lbproxy.model import LeaseKind, RoutingTable
from lbproxy.settings import PoolLimits


@pytest.fixture
def bench() -> Iterator[Bench]:
    with routing() as made:
        yield made


def pause(bench: Bench, maintenance: str | None = None, timeout_s: float = 3.0) -> None:
    bench.epoch += 1
    limits = PoolLimits(queue_timeout_s=timeout_s)
    pool = replace(bench.pool(ONE, TWO), backends=(), resting=(ONE, TWO), limits=limits, maintenance=maintenance)
    assert bench.router.apply(RoutingTable(bench.epoch, "", (), (), (pool,)))


@pytest.mark.parametrize("maintenance", [None, "soon"])
@trio_test(clock="autojump")
async def test_leases_go_on_and_only_tcp_sessions_get_new_ones(bench: Bench, maintenance: str | None) -> None:
    bench.publish(ONE, TWO)
    lease = bench.must_claim(LeaseKind.WEBSOCKET)
    pause(bench, maintenance)
    assert bench.leases(lease.backend.cell) == 1
    assert bench.drained == []
    assert bench.claim() is None
    assert bench.claim(LeaseKind.WEBSOCKET) is None
    session = bench.must_claim(LeaseKind.TCP)
    for held in (lease, session):
        bench.router.release(held)
    assert bench.drained == []


@trio_test(clock="autojump")
async def test_who_waits_is_served_when_the_pause_ends_and_told_when_it_is_too_long(bench: Bench) -> None:
    pause(bench)
    began = trio.current_time()
    with pytest.raises(ProxyError, match="the pool is paused"):
        await bench.wait_claim()
    assert trio.current_time() - began == 3.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.wait_claim)
        await trio.testing.wait_all_tasks_blocked()
        bench.publish(ONE, TWO)


@trio_test(clock="autojump")
async def test_maintenance_answers_at_once_those_who_wait_too(bench: Bench) -> None:
    pause(bench)
    told = []

    async def wait() -> None:
        with pytest.raises(ProxyError) as caught:
            await bench.wait_claim()
        told.append((caught.value.status, caught.value.page, trio.current_time()))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        pause(bench, "soon")
        nursery.start_soon(wait)
    assert told == [(503, "soon", began)] * 2
