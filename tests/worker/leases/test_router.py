"""Who gets the work: nobody reaches a backend that is absent, nobody who waits is forgotten, every lease is counted."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import trio
import trio.testing
from support.routing import ONE, THREE, TWO, Bench, routing, view
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.link.grid import Counter
from lbproxy.model import LeaseKind, ListenerView, RoutingTable
from lbproxy.settings import DrainSettings, ListenerSettings, PoolLimits, RouteSettings
from lbproxy.worker.leases.choice import SKIP_S
from lbproxy.worker.leases.drain import Lease

PUBLIC = ListenerView(1, 0, ListenerSettings("public", Address("", 80), pool="web"))
BARE = ListenerView(2, 0, ListenerSettings("bare", Address("", 81)))


@pytest.fixture
def bench() -> Iterator[Bench]:
    with routing() as made:
        yield made


# Tables


@trio_test
async def test_only_a_higher_epoch_replaces_a_table(bench: Bench) -> None:
    bench.publish(ONE)
    table = bench.router.table
    for epoch in (0, 1):
        assert not bench.router.apply(replace(table, epoch=epoch, pools=()))
    assert bench.router.table is table
    assert bench.claim() is not None


@trio_test
async def test_a_claim_reaches_only_what_is_in_the_table(bench: Bench) -> None:
    bench.publish(ONE, TWO)
    assert {bench.must_claim().backend for _ in range(8)} == {ONE, TWO}
    bench.publish(TWO, THREE)
    assert {bench.must_claim().backend for _ in range(8)} == {TWO, THREE}
    bench.publish()
    assert bench.claim() is None


@trio_test
async def test_a_lease_is_counted_by_kind_until_it_is_released(bench: Bench) -> None:
    bench.publish(ONE)
    lease = bench.must_claim()
    assert (bench.leases(1), bench.leases(1, Counter.REQUEST)) == (1, 1)
    bench.router.change_kind(lease, LeaseKind.TRANSFER)
    assert (bench.leases(1), bench.leases(1, Counter.REQUEST), bench.leases(1, Counter.TRANSFER)) == (1, 0, 1)
    bench.router.release(lease)
    assert not any(bench.grid.values)


@trio_test
async def test_a_lease_may_be_used_again(bench: Bench) -> None:
    lease = Lease()
    for number, backend, kind in ((1, ONE, LeaseKind.REQUEST), (2, TWO, LeaseKind.TCP)):
        bench.publish(backend)
        assert bench.router.claim(bench.pool(backend), kind, None, float(number), lease) is lease
        assert (lease.backend, lease.kind, lease.started, lease.moved_at) == (backend, kind, number, number)
        assert bench.leases(backend.cell) == 1
        bench.router.finish(lease)
        assert (bench.leases(backend.cell), bench.leases(backend.cell, Counter.REQUESTS)) == (0, 1)


@trio_test
async def test_the_load_that_other_workers_put_on_a_backend_counts(bench: Bench) -> None:
    bench.balance = "least_conn"
    bench.publish(ONE, TWO)
    bench.grid.values[bench.grid.base(1, ONE.cell) + Counter.LEASES] = 5
    assert {bench.must_claim().backend for _ in range(5)} == {TWO}


@trio_test
async def test_pools_take_turns_on_their_own(bench: Bench) -> None:
    """Were the turns shared, each of two pools asked alternately would always see the same parity."""
    api = tuple(view(slot, pool="api") for slot in (4, 5))
    bench.publish(ONE, TWO, others=(bench.pool(*api, name="api"),))
    picked = []
    for _ in range(8):
        picked.append(bench.must_claim().backend)
        assert bench.claim(pool="api") is not None
    # Eight to none if the turns were shared. The rotation shifts now and then, which may fall into these eight.
    assert 3 <= picked.count(ONE) <= 5


@trio_test
async def test_long_lived_work_goes_to_the_newest_generation(bench: Bench) -> None:
    new = view(1, generation=2, cell=7)
    bench.publish(ONE, TWO, new)
    for kind in (LeaseKind.WEBSOCKET, LeaseKind.TCP):
        assert {bench.must_claim(kind).backend for _ in range(6)} == {new}
    assert {bench.must_claim().backend for _ in range(6)} == {ONE, TWO, new}


@trio_test
async def test_long_lived_work_takes_what_there_is_if_the_newest_is_full(bench: Bench) -> None:
    new = view(1, generation=2, cell=7)
    bench.limits = PoolLimits(connections=1)
    bench.publish(ONE, new)
    assert [bench.must_claim(LeaseKind.TCP).backend for _ in range(2)] == [new, ONE]


# Draining


@trio_test
async def test_a_backend_without_work_is_drained_at_once(bench: Bench) -> None:
    bench.publish(ONE, TWO)
    epoch = bench.publish(TWO)
    assert bench.drained == [("web.1@1", epoch)]


@trio_test
async def test_a_backend_with_work_is_drained_with_its_last_lease(bench: Bench) -> None:
    bench.publish(ONE)
    leases = [bench.must_claim() for _ in range(2)]
    bench.publish(TWO)
    bench.router.release(leases[0])
    assert bench.drained == []
    epoch = bench.publish(TWO, THREE)
    bench.router.release(leases[1])
    assert bench.drained == [("web.1@1", epoch)]
    bench.publish(TWO)
    assert bench.drained[1:] == [("web.3@1", epoch + 1)]


@trio_test
async def test_a_backend_that_is_taken_back_is_not_drained(bench: Bench) -> None:
    bench.publish(ONE)
    lease = bench.must_claim()
    bench.publish(TWO)
    bench.publish(ONE, TWO)
    bench.router.release(lease)
    assert bench.drained == []
    assert ONE in {bench.must_claim().backend for _ in range(4)}


@trio_test
async def test_a_backend_made_again_under_its_old_name_has_leases_of_its_own(bench: Bench) -> None:
    """A rollback starts web.1@1 anew while the one that left still has work."""
    again = view(1, cell=9)
    bench.publish(ONE)
    old = bench.must_claim()
    bench.publish(TWO)
    bench.publish(again)
    assert bench.must_claim().backend == again
    bench.router.release(old)
    assert bench.drained == [("web.2@1", 3), ("web.1@1", 3)]
    assert (bench.leases(ONE.cell), bench.leases(again.cell)) == (0, 1)


@trio_test
async def test_a_backend_that_came_back_at_another_address_keeps_its_count(bench: Bench) -> None:
    moved = replace(ONE, address=Address("127.0.0.1", 29999))
    bench.publish(ONE)
    lease = bench.must_claim()
    bench.publish()
    bench.publish(moved)
    assert bench.must_claim().backend == moved
    bench.router.release(lease)
    assert bench.leases(ONE.cell) == 1
    assert bench.drained == []


@trio_test
async def test_a_pool_that_is_gone_is_drained_too(bench: Bench) -> None:
    other = view(4, pool="api")
    bench.publish(ONE, others=(bench.pool(other, name="api"),))
    lease = bench.claim(pool="api")
    assert lease is not None
    bench.publish(ONE)
    assert bench.router.pool("api") is None
    bench.router.release(lease)
    assert bench.drained == [("api.4@1", 2)]


def cut_by(bench: Bench, lease: Lease, cut: list[Lease]) -> None:
    def cutting() -> None:
        cut.append(lease)
        bench.router.release(lease)

    lease.on_cut = cutting


@trio_test(clock="autojump")
async def test_what_outlasts_its_grace_is_cut_and_counted_once(bench: Bench) -> None:
    bench.drain = DrainSettings(request_s=3)
    cut: list[Lease] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.router.run_drains)
        bench.publish(ONE)
        cut_by(bench, bench.must_claim(), cut)
        began = trio.current_time()
        await trio.sleep(10)
        assert cut == []  # not draining
        bench.publish(TWO)
        await trio.sleep(2.9)
        assert cut == []
        await trio.sleep(0.2)
        assert len(cut) == 1
        assert trio.current_time() - began < 14
        assert (bench.leases(1, Counter.CUT), bench.leases(1)) == (1, 0)
        assert bench.drained == [("web.1@1", 2)]
        nursery.cancel_scope.cancel()


@trio_test(clock="autojump")
async def test_long_lived_leases_are_told_over_the_window_and_once(bench: Bench) -> None:
    bench.drain = DrainSettings(websocket_s=4, goodbye_s=1)
    told: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.router.run_drains)
        bench.publish(ONE)
        for _ in range(8):
            lease = bench.must_claim(LeaseKind.WEBSOCKET)
            bench.router.change_kind(lease, LeaseKind.WEBSOCKET, lambda ends: told.append(trio.current_time()))
        bench.publish(TWO)
        began = trio.current_time()
        await trio.sleep(4.1)
        assert len(told) == 8
        gaps = [later - earlier for earlier, later in pairwise(told)]
        assert all(gap == pytest.approx(0.5) for gap in gaps)
        assert 0 <= told[0] - began < 0.5
        nursery.cancel_scope.cancel()


@trio_test(clock="autojump")
async def test_one_that_turns_long_lived_on_a_draining_backend_is_told_at_once(bench: Bench) -> None:
    told: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.router.run_drains)
        bench.publish(ONE)
        lease = bench.must_claim()
        bench.publish(TWO)
        await trio.sleep(1)
        bench.router.change_kind(lease, LeaseKind.WEBSOCKET, told.append)
        await trio.testing.wait_all_tasks_blocked()
        assert len(told) == 1
        nursery.cancel_scope.cancel()


@trio_test(clock="autojump")
async def test_a_worker_that_stops_gives_nobody_more_than_its_grace(bench: Bench) -> None:
    cut: list[Lease] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.router.run_drains)
        bench.publish(ONE, TWO)
        cut_by(bench, bench.must_claim(), cut)
        cut_by(bench, bench.must_claim(LeaseKind.TCP), cut)
        bench.publish(TWO)
        bench.router.stop(2)
        cut_by(bench, bench.must_claim(), cut)  # it came out of a queue
        await trio.sleep(1.9)
        assert cut == []
        await trio.sleep(0.2)
        assert len(cut) == 3
        nursery.cancel_scope.cancel()


# Skipping


@trio_test(clock="autojump")
async def test_a_backend_that_refused_is_passed_over_for_a_moment(bench: Bench) -> None:
    bench.publish(ONE, TWO)
    bench.router.skip(ONE.id)
    assert {bench.must_claim().backend for _ in range(4)} == {TWO}
    await trio.sleep(SKIP_S + 0.01)
    assert {bench.must_claim().backend for _ in range(4)} == {ONE, TWO}


@trio_test(clock="autojump")
async def test_so_is_the_only_one(bench: Bench) -> None:
    bench.publish(ONE, others=(bench.pool(TWO, name="api"),))
    bench.router.skip(ONE.id)
    assert bench.claim() is None
    assert bench.claim(pool="api") is not None
    await trio.sleep(SKIP_S + 0.01)
    assert {bench.must_claim().backend for _ in range(2)} == {ONE}


@trio_test(clock="autojump")
async def test_a_new_table_forgives_a_refusal(bench: Bench) -> None:
    bench.publish(ONE)
    bench.router.skip(ONE.id)
    assert bench.claim() is None
    bench.publish(ONE)
    assert bench.claim() is not None


# Routes

ROUTES = (
    RouteSettings("api", host="api.example.com"),
    RouteSettings("v1", path="/v1/"),
    RouteSettings("v1 of api", host="api.example.com", path="/v1"),
    RouteSettings("static", path="/static"),
    RouteSettings("second", path="/static"),
    RouteSettings("v6", host="[::1]"),
)


@pytest.mark.parametrize(
    ("host", "target", "pool"),
    [
        (b"www.example.com", b"/", "web"),
        (b"www.example.com", b"/v1", "web"),
        (b"www.example.com", b"/v1/", "v1"),
        (b"www.example.com", b"/v1/x?y=/static", "v1"),
        (b"www.example.com", b"/?/v1/", "web"),
        (b"api.example.com", b"/", "api"),
        (b"API.Example.COM:8080", b"/static", "api"),  # a host outranks a path
        (b"api.example.com.", b"/", "api"),
        (b"api.example.com", b"/v1", "v1 of api"),
        (b"api.example.com", b"/v1?x", "v1 of api"),
        (b"api.example.com", b"/v12", "api"),
        (b"", b"/static", "static"),
        (b"x", b"/static/logo.png", "static"),
        (b"x", b"/statics", "web"),
        (b"[::1]:8080", b"/", "v6"),
        (b"x", b"*", "web"),
        (b"x\xff", b"/", "web"),
    ],
)
@trio_test
async def test_a_route_is_chosen_by_host_then_by_the_longest_path(
    bench: Bench, host: bytes, target: bytes, pool: str
) -> None:
    names = ("web", *(route.pool for route in ROUTES))
    pools = tuple(bench.pool(name=name) for name in names)
    bench.router.apply(RoutingTable(1, "", (PUBLIC,), ROUTES, pools))
    found = bench.router.route(PUBLIC, host, target)
    assert found is not None
    assert found.name == pool


@trio_test
async def test_what_no_route_claims_goes_nowhere_without_a_pool_of_the_listener(bench: Bench) -> None:
    bench.router.apply(RoutingTable(1, "", (BARE,), ROUTES, (bench.pool(name="web"), bench.pool(name="static"))))
    assert bench.router.route(BARE, b"x", b"/") is None
    assert bench.router.route(BARE, b"x", b"/static") == bench.pool(name="static")
    assert bench.router.route(BARE, b"x", b"/v1/") is None  # its pool is not in the table


@trio_test
async def test_a_listener_is_unrouted_as_long_as_its_table_has_no_routes(bench: Bench) -> None:
    pools = (bench.pool(ONE), bench.pool(TWO, name="static"))
    bench.router.apply(RoutingTable(1, "", (PUBLIC, BARE), (), pools))
    assert bench.router.unrouted == {PUBLIC.key: bench.pool(ONE)}
    bench.router.apply(RoutingTable(2, "", (PUBLIC, BARE), ROUTES, pools))
    assert bench.router.unrouted == {}
    bench.router.apply(RoutingTable(3, "", (PUBLIC,), (), pools[1:]))
    assert bench.router.unrouted == {}  # its pool is gone
