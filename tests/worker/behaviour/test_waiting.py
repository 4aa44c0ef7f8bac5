"""Claiming: who is refused a connection goes elsewhere or waits, bounded by count and age; the rest is a 503."""

import pytest
import trio
import trio.testing
from support.peer import Peer
from support.proxy import GET, OK, Setup, answering, every_lane, get, lanes, never_answering, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.link.messages import Unreachable
from lbproxy.settings import PoolLimits, RouteSettings
from lbproxy.worker.leases import choice

ASKED = pytest.mark.parametrize("asked", [GET, post(b"abc"), post(bytes(100_000))], ids=["get", "post", "upload"])


def naming(name: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)


@every_lane
@ASKED
@trio_test(timeout_s=8)
async def test_who_is_refused_a_connection_goes_elsewhere(lane: str, asked: bytes) -> None:
    async with proxy(lane, answering(naming(b"one")), answering(naming(b"two"))) as lb:
        lb.backends[0].refuse()
        client = await lb.client()
        for _ in range(4):
            await client.send(asked)
            assert (await client.answer()).body == b"two"
        assert lb.posted[0].backend == "web.1@1"  # type: ignore[union-attr]
        assert {type(message) for message in lb.posted} == {Unreachable}
        assert len(lb.posted) == 1  # it is passed over from then on
        assert {record.backend for record in await lb.wait_records(4)} == {"web.2"}
        assert lb.count(Counter.FAILED, 0) == lb.count(Counter.REQUESTS, 0) == 0


@every_lane
@ASKED
@trio_test(timeout_s=8)
async def test_who_finds_nobody_waits_for_the_next_table(lane: str, asked: bytes) -> None:
    async with proxy(lane, answering(naming(b"one")), answering(naming(b"two"))) as lb:
        lb.backends[0].refuse()
        lb.publish(0)
        client = await lb.client()
        await client.send(asked)
        await wait_until(lambda: lb.router.waiting("web") == 1)
        lb.publish(1)
        assert (await client.answer()).body == b"two"


@every_lane
@trio_test(timeout_s=8)
async def test_who_waits_is_served_in_the_order_in_which_it_came(lane: str) -> None:
    served = []

    async def script(peer: Peer) -> None:
        while True:
            served.append((await peer.request()).start.split(b" ")[1])
            await peer.send(OK)

    async with proxy(lane, script, setup=Setup(pool_limits=PoolLimits(connections=1))) as lb:
        lb.publish()
        clients = [await lb.client() for _ in range(10)]
        for number, client in enumerate(clients):
            await client.send(get(b"/%d" % number))
            await wait_until(lambda: lb.router.waiting("web") == number + 1)  # noqa: B023
        lb.publish(0)
        for client in clients:
            assert (await client.answer()).status == 200
        assert served == [b"/%d" % number for number in range(10)]


@every_lane
@ASKED
@trio_test(timeout_s=8)
async def test_a_full_queue_is_a_503_at_once(lane: str, asked: bytes) -> None:
    async with proxy(lane, answering(OK), setup=Setup(pool_limits=PoolLimits(queue_size=2))) as lb:
        lb.publish()
        for _ in range(2):
            client = await lb.client()
            await client.send(GET)
        await wait_until(lambda: lb.router.waiting("web") == 2)
        client = await lb.client()
        await client.send(asked)
        answer = await client.answer()
        assert answer.status == 503
        assert answer.get(b"retry-after") == b"1"
        assert answer.get(b"proxy-status") == b"edge; error=connection_limit_reached"
        (record,) = await lb.wait_records(1)
        assert (record.status, record.backend, record.error) == (503, None, "connection_limit_reached")
        assert lb.grid.sum(0, Counter.FAILED) == 1  # of the pool: no backend is to blame


@every_lane
@ASKED
@trio_test(timeout_s=8)
async def test_who_has_waited_too_long_gets_a_503(lane: str, asked: bytes) -> None:
    async with proxy(lane, answering(OK), setup=Setup(pool_limits=PoolLimits(queue_timeout_s=0.3))) as lb:
        lb.publish()
        began = trio.current_time()
        client = await lb.client()
        await client.send(asked)
        answer = await client.answer()
        assert 0.25 < trio.current_time() - began < 1.5
        assert (answer.status, answer.get(b"retry-after")) == (503, b"1")
        assert answer.get(b"proxy-status") == b"edge; error=destination_unavailable"
        lb.publish(0)
        assert (await lb.ask(GET)).status == 200


@lanes
@trio_test(timeout_s=8)
async def test_a_backend_that_keeps_refusing_is_not_waited_for_longer_than_the_queue_allows(
    lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again and again meanwhile: control may not have noticed yet."""
    monkeypatch.setattr(choice, "SKIP_S", 0.1)
    async with proxy(lane, answering(OK), setup=Setup(pool_limits=PoolLimits(queue_timeout_s=0.45))) as lb:
        lb.backends[0].refuse()
        began = trio.current_time()
        answer = await lb.ask(GET)
        assert answer.status == 503
        assert 0.4 < trio.current_time() - began < 2
        assert 2 <= len(lb.posted) <= 6


@every_lane
@trio_test(timeout_s=8)
async def test_a_backend_has_no_more_work_than_its_limit(lane: str) -> None:
    most = now = 0

    async def script(peer: Peer) -> None:
        nonlocal most, now
        while True:
            await peer.request()
            now += 1
            most = max(most, now)
            await trio.sleep(0.005)
            now -= 1
            await peer.send(OK)

    async with proxy(lane, script, setup=Setup(pool_limits=PoolLimits(connections=3))) as lb:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(lb.ask, GET)
        assert most == 3
        await lb.wait_records(20)


@every_lane
@trio_test(timeout_s=8)
async def test_a_request_that_comes_while_the_only_backend_restarts_is_served(lane: str) -> None:
    async with proxy(lane, answering(naming(b"old")), answering(naming(b"new"))) as lb:
        lb.publish(0)
        client = await lb.client()
        await client.send(GET)
        assert (await client.answer()).body == b"old"
        lb.publish()
        await client.send(GET + GET)
        await trio.testing.wait_all_tasks_blocked(0.02)
        lb.publish(1)
        assert [(await client.answer()).body for _ in range(2)] == [b"new", b"new"]


@every_lane
@trio_test(timeout_s=8)
async def test_where_no_route_leads_is_a_404(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=Setup(pool=None, routes=(RouteSettings("web", None, "/in"),))) as lb:
        client = await lb.client()
        for path, status in ((b"/", 404), (b"/in", 200), (b"/inside", 404), (b"/in/side?x", 200)):
            await client.send(get(path))
            answer = await client.answer()
            assert answer.status == status
            assert answer.get(b"connection") is None
        await client.send(get(b"/", b"Content-Length: 100000", method=b"POST"))
        assert (await client.answer()).status == 404  # before its body is read
        records = await lb.wait_records(5)
        assert [record.status for record in records] == [404, 200, 404, 200, 404]
        assert records[0].error == "destination_not_found"


@every_lane
@trio_test(timeout_s=8)
async def test_a_pool_that_goes_away_does_not_keep_anybody_waiting(lane: str) -> None:
    setup = Setup(pool=None, routes=(RouteSettings("web"),))
    async with proxy(lane, answering(OK), setup=setup) as lb:
        lb.publish()
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.router.waiting("web") == 1)
        lb.publish(0, name="other")
        assert (await client.answer()).status in (404, 503)


@every_lane
@trio_test(timeout_s=8)
async def test_where_no_backend_can_come_nothing_is_waited_for(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        lb.publish()
        waiting = await lb.client()
        await waiting.send(GET)
        await wait_until(lambda: lb.router.waiting("web") == 1)
        lb.publish(is_hopeless=True)
        for client in (waiting, await lb.client()):
            if client is not waiting:
                await client.send(GET)
            answer = await client.answer()
            assert answer.status == 503
            assert b"every backend of the pool has failed" in answer.body
        assert lb.router.queues == {}


@lanes
@trio_test(timeout_s=8)
async def test_a_queue_that_was_needed_once_costs_later_requests_nothing(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        lb.publish()
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.router.waiting("web") == 1)
        lb.publish(0)
        assert (await client.answer()).status == 200
        assert lb.router.queues == {}


@lanes
@trio_test(timeout_s=8)
async def test_who_waits_in_vain_at_a_limit_is_told_of_the_limit(lane: str) -> None:
    setup = Setup(pool_limits=PoolLimits(connections=1, queue_timeout_s=0.2))
    async with proxy(lane, never_answering, setup=setup) as lb:
        holds, waits = await lb.client(), await lb.client()
        await holds.send(GET)
        await wait_until(lambda: lb.leases == 1)
        await waits.send(GET)
        answer = await waits.answer()
        assert answer.status == 503
        assert answer.get(b"proxy-status") == b"edge; error=connection_limit_reached"
        assert b"every backend has as many connections as it may" in answer.body
