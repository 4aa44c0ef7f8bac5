"""Clients wait a moment for a slot in its first start, so that all of them do not go to the backend that is first."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio
from support.routing import Bench, routing, view
from support.trio_test import trio_test

from lbproxy.model import BackendView, LeaseKind, RoutingTable
from lbproxy.settings import PoolLimits, StickySettings
from lbproxy.worker.leases.affinity import StickyKey
from lbproxy.worker.leases.slot_waits import SLOT_S

ONE, TWO = (view(slot, token=f"token-{slot}") for slot in (1, 2))
KEY = StickyKey(b"token-2")
virtual = trio_test(clock="autojump", timeout_s=300)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with routing() as made:
        made.sticky = StickySettings()
        yield made


def publish(bench: Bench, *backends: BackendView, coming: tuple[str, ...] = ()) -> None:
    bench.epoch += 1
    pool = replace(bench.pool(*backends), coming=coming)
    assert bench.router.apply(RoutingTable(bench.epoch, "", (), (), (pool,)))


async def slot_for(bench: Bench, key: StickyKey = KEY) -> int:
    """As the task lane claims."""
    lease = bench.claim(key=key) or await bench.router.wait_claim("web", LeaseKind.REQUEST, key)
    bench.router.release(lease)
    return lease.backend.id.slot


@virtual
async def test_a_client_gets_its_slot_when_it_comes_though_another_is_ready(bench: Bench) -> None:
    publish(bench, coming=("token-1", "token-2"))
    got: list[int] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            got.append(await slot_for(bench))

        nursery.start_soon(ask)
        await trio.sleep(5.0)  # while nothing is ready it waits as everybody does
        publish(bench, ONE, coming=("token-2",))
        assert await slot_for(bench, StickyKey()) == 1  # others do not wait for it
        assert await slot_for(bench, StickyKey(b"forged")) == 1
        await trio.sleep(SLOT_S / 2)
        assert got == []
        publish(bench, ONE, TWO)
    assert got == [2]


@virtual
async def test_a_slot_that_takes_its_time_is_not_waited_for_longer(bench: Bench) -> None:
    publish(bench, ONE, coming=("token-2",))
    began = trio.current_time()
    assert await slot_for(bench) == 1
    assert trio.current_time() - began == pytest.approx(SLOT_S)
    publish(bench, ONE)  # it has failed
    began = trio.current_time()
    assert await slot_for(bench) == 1
    assert trio.current_time() == began


@virtual
async def test_no_more_wait_for_a_slot_than_the_queue_holds(bench: Bench) -> None:
    bench.limits = PoolLimits(queue_size=2)
    publish(bench, ONE, coming=("token-2",))
    took: list[float] = []

    async def ask() -> None:
        began = trio.current_time()
        assert await slot_for(bench) == 1
        took.append(round(trio.current_time() - began, 3))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    assert sorted(took) == [0.0, 0.0, SLOT_S, SLOT_S]
