"""Which backend gets a lease: a sticky client's slot as long as it can serve, whatever the tables say one after the
other; else what `balance` picks."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.routing import Bench, routing, view
from support.trio_test import trio_test

from lbproxy.model import BackendView, LeaseKind, PoolView
from lbproxy.settings import PoolLimits, StickySettings
from lbproxy.worker.leases.affinity import StickyKey
from lbproxy.worker.leases.choice import Choice

ONE, TWO, THREE = (view(slot, token=f"token-{slot}") for slot in (1, 2, 3))
NEW_TWO = view(2, generation=2, cell=5, token="token-2")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with routing() as made:
        made.sticky = StickySettings()
        yield made


def key(slot: int) -> StickyKey:
    return StickyKey(b"token-%d" % slot)


def slots_of(bench: Bench, wanted: StickyKey, kind: LeaseKind = LeaseKind.REQUEST) -> set[int]:
    """The slots that eight such claims get."""
    leases = [bench.claim(kind, wanted) for _ in range(8)]
    for lease in leases:
        assert lease is not None
        bench.router.release(lease)
    return {lease.backend.id.slot for lease in leases if lease is not None}


@trio_test
async def test_a_client_stays_on_its_slot(bench: Bench) -> None:
    bench.publish(ONE, TWO, THREE)
    assert [slots_of(bench, key(slot)) for slot in (1, 2, 3)] == [{1}, {2}, {3}]
    assert slots_of(bench, StickyKey()) == {1, 2, 3}
    assert slots_of(bench, StickyKey(b"forged")) == {1, 2, 3}


@trio_test
async def test_a_slot_that_cannot_serve_is_left(bench: Bench) -> None:
    bench.publish(ONE, TWO, THREE)
    bench.router.skip(TWO.id)
    assert slots_of(bench, key(2)) == {1, 3}
    bench.publish(ONE, THREE)
    assert slots_of(bench, key(2)) == {1, 3}
    bench.limits = PoolLimits(connections=1)
    bench.publish(ONE, TWO)
    held = bench.claim(key=key(2))
    assert held is not None
    assert held.backend == TWO
    other = bench.claim(key=key(2))
    assert other is not None
    assert other.backend != TWO
    bench.router.release(held)
    bench.router.release(other)


@trio_test
async def test_what_was_avoided_is_not_chosen_for_its_cookie(bench: Bench) -> None:
    bench.publish(ONE, TWO)
    lease = bench.router.claim(bench.pool(ONE, TWO), LeaseKind.REQUEST, key(1), avoid=(ONE,))
    assert lease is not None
    assert lease.backend == TWO
    bench.router.release(lease)


@trio_test
async def test_a_websocket_goes_to_its_slot_while_a_reload_runs_and_there_to_the_newest(bench: Bench) -> None:
    bench.publish(ONE, TWO, NEW_TWO)
    assert slots_of(bench, key(1), LeaseKind.WEBSOCKET) == {1}
    lease = bench.claim(LeaseKind.WEBSOCKET, key(2))
    assert lease is not None
    assert lease.backend == NEW_TWO
    bench.router.release(lease)


@trio_test
async def test_a_cookie_is_set_only_where_the_client_does_not_have_it(bench: Bench) -> None:
    bench.publish(ONE, TWO)
    lease = bench.claim(key=key(1))
    assert lease is not None
    assert bench.router.cookie(lease, key(1), b"http") == b""
    assert b"lbproxy=token-1;" in bench.router.cookie(lease, key(2), b"http")
    assert b"Secure" in bench.router.cookie(lease, StickyKey(), b"https")
    assert bench.router.cookie(lease, b"hashed", b"http") == b""
    bench.router.release(lease)


def part_of(bench: Bench, slot: int, times: int = 400) -> float:
    """The part of one request after the other that a slot gets."""
    got = 0
    for _ in range(times):
        lease = bench.must_claim()
        got += lease.backend.id.slot == slot
        bench.router.release(lease)
    return got / times


@pytest.mark.parametrize("balance", ["round_robin", "least_conn", "random_two"])
@trio_test(clock="autojump", timeout_s=300)
async def test_the_share_of_a_backend_that_comes_grows(balance: str) -> None:
    with routing() as bench:
        bench.balance, bench.slow_start_s = balance, 30.0
        bench.publish(ONE, TWO)
        assert part_of(bench, 2) == pytest.approx(0.5, abs=0.15)  # nobody is new in the first table
        bench.publish(ONE, TWO, THREE)
        parts = [part_of(bench, 3)]
        for _ in range(3):
            await trio.sleep(10.0)
            bench.publish(ONE, TWO, THREE)  # another table changes nothing
            parts.append(part_of(bench, 3))
        assert parts[0] < 0.08
        assert parts[1] < parts[3]
        assert parts[3] == pytest.approx(1 / 3, abs=0.1)


@trio_test(clock="autojump", timeout_s=300)
async def test_where_all_come_at_once_they_share_alike(bench: Bench) -> None:
    bench.slow_start_s = 30.0
    bench.publish()
    bench.publish(ONE, TWO)
    assert part_of(bench, 1) == pytest.approx(0.5, abs=0.01)
    bench.publish(TWO)
    bench.publish(ONE, TWO)  # it has left: it is new again
    assert part_of(bench, 1) == pytest.approx(0.5, abs=0.2)
    await trio.sleep(40.0)
    bench.publish(TWO)
    bench.publish(ONE, TWO)
    assert part_of(bench, 1) < 0.1


@trio_test(clock="autojump", timeout_s=300)
async def test_a_sticky_client_goes_to_its_slot_however_new_it_is(bench: Bench) -> None:
    bench.slow_start_s = 30.0
    bench.publish(ONE)
    bench.publish(ONE, TWO)
    assert slots_of(bench, key(2)) == {2}


tables = st.lists(st.sets(st.tuples(st.integers(1, 4), st.integers(1, 3)), max_size=6), min_size=1, max_size=8)


@given(tables, st.integers(1, 4))
def test_over_any_row_of_tables_a_client_moves_only_when_its_slot_is_gone(
    rows: list[set[tuple[int, int]]], slot: int
) -> None:
    """Reloads, scales, drains and deaths are tables to a worker. `slot` is what the client's cookie names."""
    choice = Choice(lambda cell: 0, lambda: None)
    for row in rows:
        backends = tuple(view(s, generation=g, cell=10 * g + s, token=f"token-{s}") for s, g in sorted(row))
        pool = _pool(backends)
        choice.apply((pool,))
        chosen = choice.choose(pool, LeaseKind.REQUEST, key(slot), ())
        present = {backend.id.slot for backend in backends}
        if chosen is None:
            assert not present
            continue
        line = choice.cookie(chosen, key(slot), secure=False)
        if slot in present:
            assert chosen.id.slot == slot
            assert chosen.id.generation == max(g for s, g in row if s == slot)
            assert line == b""
        else:
            assert b"lbproxy=token-%d;" % chosen.id.slot in line
            slot = chosen.id.slot


def _pool(backends: tuple[BackendView, ...]) -> PoolView:
    with routing() as bench:
        return replace(bench.pool(*backends), sticky=StickySettings())
