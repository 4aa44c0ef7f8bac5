"""From a 101 to a relay: nothing in hand is lost, and lease, counters and log end with the relay."""

import gc
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
from support.peer import Peer
from support.proxy import FIRST_CELL, LISTENER_CELL, OK, Proxy, Setup, get, lanes, proxy, wait_until
from support.trio_test import trio_test

import lbproxy
from lbproxy.link.grid import Counter
from lbproxy.link.messages import Incidents
from lbproxy.settings import DrainSettings
from lbproxy.wire.websocket import close_frame
from lbproxy.worker.io.reactor import NEVER
from lbproxy.worker.relay.websocket import WebSocketRelay

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
        (lease,) = leases.held
        lb.publish()
        await wait_until(lambda: lease.ends is not None)
        assert lease.ends is not None
        relay = lease.on_cut.__self__  # type: ignore[attr-defined]
        assert isinstance(relay, WebSocketRelay)
        both = [relay.on_deadline, lambda: lb.router._drain_on(leases, lease.ends + 30)]
        for end in both if first == "its own deadline" else reversed(both):
            end()
        (record,) = await lb.wait_records(1)
        assert record.error == "cut"
        assert lb.count(Counter.CUT) == 1
        await wait_until(lambda: lb.drained)


async def switching(peer: Peer) -> None:
    await peer.request()
    await peer.send(SWITCH)
    await peer.wait_ended()


@lanes
@trio_test(timeout_s=8)
async def test_the_log_says_of_a_long_session_what_it_says_of_a_short_one(lane: str) -> None:
    fields = (b"User-Agent: Firefox", b"Referer: http://a.example/", b"Cookie: a=b")
    asked = UPGRADE.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % b"\r\n".join(fields))
    async with proxy(lane, switching) as lb:
        client = await lb.client()
        began = trio.current_time()
        await client.send(asked)
        await head_of(client)
        await client.send(MASKED_HELLO)
        await wait_until(lambda: lb.backends[0].received.endswith(MASKED_HELLO))
        await trio.sleep(0.05)
        client.close()
        (record,) = await lb.wait_records(1)
        assert 0.05 <= record.duration_s <= trio.current_time() - began
        assert record.time == pytest.approx(lb.reactor.wall(began), abs=1)
        assert (record.request_bytes, record.response_bytes) == (len(MASKED_HELLO), 0)
        assert (record.client, record.error) == (b"127.0.0.1", None)
        assert b"X-Request-ID: %b\r\n" % record.request_id in lb.backends[0].received
        head = record.head
        assert (head.method, head.target, head.host, head.minor) == (b"GET", b"/chat", b"a.example", 1)
        assert head.fields == {b"user-agent": [b"Firefox"], b"referer": [b"http://a.example/"]}
        assert head.lines == []


@lanes
@trio_test(timeout_s=8)
async def test_it_is_one_of_the_workers_connections_until_it_has_ended(lane: str) -> None:
    setup = Setup(drain=DrainSettings(websocket_s=0.05, goodbye_s=1.0))
    async with proxy(lane, switching, setup=setup) as lb:
        client = await lb.client()
        await client.send(UPGRADE)
        await head_of(client)
        await wait_until(lambda: not lb.lanes._in_tasks)
        (listener,) = lb.router.table.listeners
        lb.lanes.refresh((replace(listener, settings=replace(listener.settings, name="renamed")),))
        assert lb.lanes.connections == lb.grid.sum(LISTENER_CELL, Counter.CONNECTIONS) == 1
        lb.acceptor.leave_all()
        lb.lanes.stop(10.0)
        ours = close_frame(1001, "going away", None)
        assert await hear(client, len(ours)) == ours
        assert lb.lanes.connections == 1
        await client.send(b"\x88\x82\0\0\0\0\x03\xe9")
        await lb.lanes._emptied.wait()
        assert lb.lanes.connections == lb.grid.sum(LISTENER_CELL, Counter.CONNECTIONS) == 0


MANY = 50
LBPROXY = Path(lbproxy.__file__).parent


@lanes
@trio_test(timeout_s=90)  # tracemalloc makes it slow
async def test_an_idle_one_costs_less_than_3_kb_and_leaves_nothing_behind(lane: str) -> None:
    async def opened() -> Peer:
        client = await lb.client()
        await client.send(UPGRADE)
        await head_of(client)
        return client

    async with proxy(lane, switching) as lb:
        await opened()  # has what all of them share
        gc.collect()
        gc.disable()
        tracemalloc.start(10)
        try:
            many = [await opened() for _ in range(MANY)]
            await wait_until(lambda: not lb.lanes._in_tasks)
            each = await allocated(lb) / MANY
            for client in many:
                client.close()
            await lb.wait_records(MANY)
            lb.records.clear()
            left = await allocated(lb) / MANY
        finally:
            tracemalloc.stop()
            gc.enable()
        assert each < 3072, each  # 2,400 where this was written, both sockets included
        assert left < 768, left  # room in tables


async def allocated(lb: Proxy) -> int:
    """What lbproxy's code has asked for and not let go of, in bytes."""
    for _ in range(1200):  # Trio forgets deadlines that are over a thousand at a time,
        with trio.move_on_after(1000.0):  # noqa: ASYNC100
            pass
    await trio.lowlevel.checkpoint()
    for _ in range(300):  # the reactor some hundreds
        if lb.reactor._heap:
            item = Item()
            lb.reactor.arm(item, 1000.0)
            lb.reactor.disarm(item)
    assert not lb.reactor._heap
    assert gc.collect() < MANY, "something waits for the collector"  # Python itself lets go of its free lists here
    ours = tracemalloc.Filter(inclusive=True, filename_pattern=f"{LBPROXY}/*", all_frames=True)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([ours]).traces)


@dataclass
class Item:
    deadline: float = NEVER
    queued_at: float = NEVER

    def on_deadline(self) -> None: ...


@pytest.mark.parametrize("by", ["client", "backend", "nobody"])
@trio_test(timeout_s=8)
async def test_a_websocket_counts_once_and_its_close_with_its_sender(by: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCH + (close_frame(4321, "", None) if by == "backend" else b""))
        await peer.wait_ended()

    async with proxy("express", script) as lb:
        client = await lb.client()
        await client.send(UPGRADE)
        await head_of(client)
        (exchange,) = lb.router.tally.take().exchanges
        assert (exchange.pool, exchange.method, exchange.status, sum(exchange.buckets)) == ("web", "GET", 101, 1)
        said = close_frame(4001, "", b"abcd") if by == "client" else b""
        await client.send(said)
        if by == "client":
            await wait_until(lambda: lb.backends[0].received.endswith(said))
        client.close()
        await wait_until(lambda: not lb.lanes.connections)
        increase = lb.router.tally.take()
        codes = {"client": "4xxx", "backend": "4321", "nobody": "1006"}
        assert increase.incidents == (Incidents("websocket_close", ("web", codes[by], by), 1),)
        assert sum(sum(part.buckets) for part in increase.exchanges) == 0
        assert sum(part.request_bytes for part in increase.exchanges) == len(said)
