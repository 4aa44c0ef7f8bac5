"""What is over is freed at once, and does not wait for the collector, which looks seldom."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio
import trio.testing
from support.peer import Peer
from support.proxy import GET, OK, Proxy, get, lanes, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.worker.express.client import ExpressClient
from lbproxy.worker.handover import Upgrade
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.relay.relay import Relay
from lbproxy.worker.relay.side import Side
from lbproxy.worker.relay.tcp import TcpClient
from lbproxy.worker.task.attempt import Attempt
from lbproxy.worker.task.client import Client
from lbproxy.worker.task.exchange import Exchange

OURS = (Attempt, Client, Side, Exchange, ExpressClient, Lease, Relay, TcpClient, Upgrade)
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
UPGRADE = get(b"/", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CLOSE = b"\x88\x80\0\0\0\0"


@contextmanager
def nothing_for_the_collector() -> Iterator[None]:
    """None of OURS may be left in a cycle by what is done meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(type(thing).__name__ for thing in gc.garbage if isinstance(thing, OURS))
        assert found == Counter()
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def all_gone(lb: Proxy) -> None:
    await wait_until(lambda: lb.lanes.connections == 0 and lb.leases == 0)
    await trio.testing.wait_all_tasks_blocked()


@lanes
@trio_test(timeout_s=8)
async def test_exchanges_leave_nothing(lane: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK)

    async with proxy(lane, script) as lb:
        with nothing_for_the_collector():
            client = await lb.client()
            for request in (GET, CHUNKED, GET, CHUNKED):
                await client.send(request)
                assert (await client.answer()).status == 200
            client.close()
            await all_gone(lb)


@lanes
@trio_test(timeout_s=8)
async def test_websockets_leave_nothing(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCH)
        await peer.exactly(len(CLOSE))
        await peer.send(b"\x88\x00")
        peer.end()
        await peer.wait_ended()

    async with proxy(lane, script) as lb:
        with nothing_for_the_collector():
            client = await lb.client()
            await client.send(UPGRADE)
            await client.head()
            await client.send(CLOSE)
            await client.rest()
            client.close()
            await all_gone(lb)
