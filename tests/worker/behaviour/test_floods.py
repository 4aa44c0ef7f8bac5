"""Many and much: one client's flood costs the others little, and leaves nothing behind.

What others wait is measured in processor time of this thread, in which everything runs: a busy machine does not count.
"""

import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from support.peer import Ended, Peer
from support.proxy import GET, OK, Proxy, Setup, answering, get, lanes, post_chunked, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.settings import ListenerLimits, PoolTimeouts, RouteSettings

MOST_S = 0.1  # others' requests
FEWEST = 10


class Others:
    def __init__(self) -> None:
        self.waited: list[float] = []

    @property
    def p99_s(self) -> float:
        assert len(self.waited) >= FEWEST, "nobody else was served"
        return sorted(self.waited)[int((len(self.waited) - 1) * 0.99)]


@asynccontextmanager
async def others(lb: Proxy, path: bytes = b"/") -> AsyncIterator[Others]:
    """Somebody asks something every other moment."""
    seen = Others()

    async def ask() -> None:
        client = await lb.client()
        while True:
            began = time.thread_time()
            await client.send(get(path))
            assert (await client.answer()).status == 200
            seen.waited.append(time.thread_time() - began)
            await trio.sleep(0.002)

    gc.collect()
    gc.freeze()  # what thousands of tests have left is not looked through in somebody's request
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            yield seen
            await wait_until(lambda: len(seen.waited) >= FEWEST)
            nursery.cancel_scope.cancel()
    finally:
        gc.unfreeze()


async def _send(client: Peer, data: bytes) -> None:
    try:
        await client.send(data)
    except Ended:
        return


async def _read(client: Peer) -> None:
    while await client.more():
        client.buffer.clear()
        client.received.clear()


@lanes
@pytest.mark.parametrize("what", [GET, get(b"/", method=b"HEAD"), post_chunked(b"abc")], ids=["get", "head", "chunks"])
@trio_test(timeout_s=20)
async def test_a_flood_of_pipelined_requests_keeps_nobody_waiting(lane: str, what: bytes) -> None:
    def script(answer: bytes) -> object:
        return answering(answer)

    answer = OK if not what.startswith(b"HEAD") else OK.removesuffix(b"hello")
    async with proxy(lane, answering(answer), answering(OK), setup=Setup(routes=(RouteSettings("web"),))) as lb:
        lb.publish(0)
        if what.startswith(b"HEAD"):
            answer = OK
        async with trio.open_nursery() as nursery:
            flooding = await lb.client()
            nursery.start_soon(_send, flooding, what * 3000)
            nursery.start_soon(_read, flooding)
            if what.startswith(b"HEAD"):
                await lb.wait_records(500)
            else:
                async with others(lb) as seen:
                    await lb.wait_records(500)
                assert seen.p99_s < MOST_S
            nursery.cancel_scope.cancel()


@lanes
@trio_test(timeout_s=20)
async def test_a_flood_of_requests_that_we_answer_ourselves_keeps_nobody_waiting(lane: str) -> None:
    setup = Setup(pool=None, routes=(RouteSettings("web", None, "/in"),))
    async with proxy(lane, answering(OK), setup=setup) as lb, trio.open_nursery() as nursery:
        flooding = await lb.client()
        nursery.start_soon(_send, flooding, GET * 3000)
        nursery.start_soon(_read, flooding)
        async with others(lb, b"/in") as seen:
            await lb.wait_records(1500)
        assert seen.p99_s < MOST_S
        nursery.cancel_scope.cancel()


@lanes
@trio_test(timeout_s=20)
async def test_a_megabyte_of_head_keeps_nobody_waiting(lane: str) -> None:
    setup = Setup(limits=ListenerLimits(header_bytes=1 << 20, headers=100_000))
    async with proxy(lane, answering(OK), setup=setup) as lb, trio.open_nursery() as nursery:
        client = await lb.client()
        nursery.start_soon(_send, client, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 170_000)
        nursery.start_soon(_read, client)
        async with others(lb) as seen:
            await trio.sleep(0.2)
        assert seen.p99_s < MOST_S
        nursery.cancel_scope.cancel()


@lanes
@trio_test(timeout_s=20)
async def test_heads_that_come_byte_by_byte_cost_little(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        head = get(b"/", b"A: " + b"x" * 12_000)
        client = await lb.client()
        began = time.thread_time()
        await client.dribble(head)
        assert (await client.answer()).status == 200
        assert time.thread_time() - began < 6  # half a millisecond a byte, ours and the test's own


@lanes
@trio_test(timeout_s=20)
async def test_clients_that_come_and_go_leave_nothing(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        for _ in range(300):
            client = await lb.client()
            await client.send(get(b"/", b"Connection: close"))
            assert (await client.answer()).status == 200
            client.close()
        async with others(lb) as seen:
            for _ in range(300):
                (await lb.client()).close()
        assert seen.p99_s < MOST_S
        await wait_until(lambda: lb.lanes.connections <= 1)


@lanes
@trio_test(timeout_s=20)
async def test_lines_that_never_repeat_are_forgotten(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        lines = lb.context.lines
        before = len(lines.requests)
        for number in range(0, 12_000, 60):
            await client.send(get(b"/%d" % number, *(b"X-%d: %d" % (at, at) for at in range(number, number + 60))))
            assert (await client.answer()).status == 200
        assert len(lines.requests) - before <= 4096
        assert len(lines.starts) <= 4096


@lanes
@trio_test(timeout_s=20)
async def test_an_answer_without_end_to_its_head_is_refused_in_bounded_memory(lane: str) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await peer.send(b"A: b\r\n" * 1000)
            sent += 6000

    async with proxy(lane, script, setup=Setup(pool_timeouts=PoolTimeouts(response_s=5))) as lb:
        assert (await lb.ask(GET)).status == 502
        assert sent < 10_000_000


@lanes
@trio_test(timeout_s=20)
async def test_two_thousand_connections_are_served_and_forgotten(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        clients = [await lb.client() for _ in range(400)]
        for client in clients:
            await client.send(GET)
        for client in clients:
            assert (await client.answer()).status == 200
        assert lb.lanes.connections == 400


@lanes
@trio_test(timeout_s=8)
async def test_more_connections_than_allowed_wait_until_one_leaves(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=Setup(limits=ListenerLimits(connections=3))) as lb:
        clients = [await lb.client() for _ in range(3)]
        for client in clients:
            await client.send(GET)
            assert (await client.answer()).status == 200

        async def come_later() -> None:
            assert (await lb.ask(GET)).status == 200

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_later)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert lb.lanes.connections == 3
            clients[0].close()
