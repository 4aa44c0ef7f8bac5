"""From a 101 to a relay: nothing in hand is lost, and lease, counters and log end with the relay."""

import pytest
from support.peer import Peer
from support.proxy import FIRST_CELL, OK, Setup, get, lanes, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import DrainSettings
from lbproxy.wire.websocket import close_frame
from lbproxy.worker.websocket_relay import WebSocketRelay

UPGRADE = get(
    b"/chat",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
MASKED_HELLO = b"\x81\x85\0\0\0\0hello"
HELLO = b"\x81\x05hello"
ENDS = close_frame(1000, "", None)


async def head_of(client: Peer) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = await client.sock.recv(4096)
        assert more, data
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    client.buffer += rest
    return head


async def hear(client: Peer, count: int) -> bytes:
    while len(client.buffer) < count and (more := await client.sock.recv(4096)):
        client.buffer += more
    return bytes(client.buffer)


@lanes
@trio_test(timeout_s=8)
async def test_what_came_with_the_heads_goes_first(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCH + HELLO)
        await peer.wait_ended()

    async with proxy(lane, script) as lb:
        client = await lb.client()
        await client.send(UPGRADE + MASKED_HELLO)
        head = await head_of(client)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Upgrade: websocket" in head
        assert await hear(client, len(HELLO)) == HELLO
        await wait_until(lambda: lb.backends[0].received.endswith(MASKED_HELLO))
        assert lb.count(Counter.WEBSOCKET) == lb.count(Counter.LEASES) == 1


@lanes
@trio_test(timeout_s=8)
async def test_an_upgrade_that_is_declined_is_an_ordinary_answer(lane: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK)

    async with proxy(lane, script) as lb:
        client = await lb.client()
        await client.send(UPGRADE + get(b"/next"))
        assert (await client.answer()).body == b"hello"
        assert (await client.answer()).body == b"hello"  # what came behind was the next request
        assert lb.count(Counter.WEBSOCKET) == 0


@lanes
@pytest.mark.parametrize("by", ["client", "backend"])
@trio_test(timeout_s=8)
async def test_it_is_counted_and_logged_when_it_ends(lane: str, by: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCH)
        if by == "backend":
            await peer.send(ENDS)
            peer.end()
        await peer.wait_ended()

    async with proxy(lane, script) as lb:
        client = await lb.client()
        await client.send(UPGRADE)
        await head_of(client)
        if by == "backend":
            assert await hear(client, len(ENDS)) == ENDS
        client.close()
        (record,) = await lb.wait_records(1)
        assert record.status == 101
        assert record.backend == "web.1"
        assert lb.count(Counter.REQUESTS) == 1
        assert lb.leases == 0
        assert lb.count(Counter.WEBSOCKETS_CLOSED) == 0


@lanes
@trio_test(timeout_s=8)
async def test_a_goodbye_of_ours_is_counted(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCH)
        await peer.wait_ended()

    setup = Setup(drain=DrainSettings(websocket_s=0.05, goodbye_s=1.0))
    async with proxy(lane, script, script, setup=setup) as lb:
        client = await lb.client()
        await client.send(UPGRADE)
        await head_of(client)
        index = 0 if lb.count(Counter.WEBSOCKET, 0) else 1
        lb.publish(1 - index)
        ours = close_frame(1001, "going away", None)
        assert await hear(client, len(ours)) == ours
        await client.send(b"\x88\x82\0\0\0\0\x03\xe9")
        await lb.wait_records(1)
        assert lb.count(Counter.WEBSOCKETS_CLOSED, index) == 1
        assert lb.count(Counter.CUT, index) == 0
        await wait_until(lambda: lb.drained)


@lanes
@pytest.mark.parametrize("first", ["its own deadline", "the drain"])
@trio_test(timeout_s=8)
async def test_a_cut_is_counted_once_whoever_comes_first_in_the_moment_of_both(lane: str, first: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCH + ENDS)  # which the client never answers
        await peer.wait_ended()

    async with proxy(lane, script, setup=Setup(drain=DrainSettings(websocket_s=0.05, goodbye_s=30))) as lb:
        client = await lb.client()
        await client.send(UPGRADE)
        await head_of(client)
        assert await hear(client, len(ENDS)) == ENDS
        leases = lb.router._leases[FIRST_CELL]
        (lease,) = leases._leases
        lb.publish()
        await wait_until(lambda: lease.ends is not None)
        assert lease.ends is not None
        relay = lease.cut.__self__  # type: ignore[attr-defined]
        assert isinstance(relay, WebSocketRelay)
        both = [relay.on_deadline, lambda: lb.router._drain_on(leases, lease.ends + 30)]
        for end in both if first == "its own deadline" else reversed(both):
            end()
        (record,) = await lb.wait_records(1)
        assert record.error == "cut"
        assert lb.count(Counter.CUT) == 1
        await wait_until(lambda: lb.drained)
