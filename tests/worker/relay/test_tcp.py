"""TCP mode: a connection is a lease and a relay; who finds nobody waits, who is refused goes elsewhere."""

import pytest
import trio
from support.peer import Peer
from support.proxy import Setup, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import DrainSettings, PoolLimits, PoolTimeouts

TCP = Setup(mode="tcp")


async def shouting(peer: Peer) -> None:
    """Gives back what it hears, in capitals, and ends when the client does."""
    while data := await peer.sock.recv(4096):
        await peer.send(data.upper())
    peer.end()
    await peer.wait_ended()


async def heard(peer: Peer, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := await peer.sock.recv(4096)):
        data += more
    return data


@trio_test(timeout_s=8)
async def test_bytes_pass_both_ways_and_the_connection_is_a_lease() -> None:
    async with proxy("express", shouting, setup=TCP) as lb:
        client = await lb.client()
        await client.send(b"hello")
        assert await heard(client, 5) == b"HELLO"
        assert lb.count(Counter.TCP) == lb.count(Counter.LEASES) == 1
        client.end()
        assert await heard(client, 1) == b""
        await wait_until(lambda: lb.count(Counter.REQUESTS) == 1)
        assert lb.leases == 0
        (record,) = lb.records
        assert (record.head.method, record.head.target, record.status) == (b"TCP", b"public", 200)
        assert (record.request_bytes, record.response_bytes, record.backend) == (5, 5, "web.1")
        assert record.error is None
        assert record.duration_s > 0


@trio_test(timeout_s=8)
async def test_all_backends_are_used() -> None:
    async with proxy("express", shouting, shouting, shouting, setup=TCP) as lb:
        for _ in range(6):
            client = await lb.client()
            await client.send(b"x")
            assert await heard(client, 1) == b"X"
        assert [lb.count(Counter.TCP, index) for index in range(3)] == [2, 2, 2]


@trio_test(timeout_s=8)
async def test_who_is_refused_a_connection_goes_elsewhere() -> None:
    async with proxy("express", shouting, shouting, setup=TCP) as lb:
        lb.backends[0].refuse()
        for _ in range(3):
            client = await lb.client()
            await client.send(b"x")
            assert await heard(client, 1) == b"X"
        assert lb.count(Counter.TCP, 1) == 3


@trio_test(timeout_s=8)
async def test_who_finds_nobody_waits_for_the_next_table() -> None:
    async with proxy("express", shouting, setup=TCP) as lb:
        lb.publish()
        client = await lb.client()
        await client.send(b"x")
        await wait_until(lambda: lb.router.waiting("web") == 1)
        lb.publish(0)
        assert await heard(client, 1) == b"X"


@pytest.mark.parametrize("limits", [PoolLimits(queue_size=0), PoolLimits(queue_timeout_s=0.2)], ids=["full", "old"])
@trio_test(timeout_s=8)
async def test_who_waits_in_vain_is_closed(limits: PoolLimits) -> None:
    async with proxy("express", setup=Setup(mode="tcp", pool_limits=limits)) as lb:
        client = await lb.client()
        assert await heard(client, 1) == b""


@trio_test(timeout_s=8)
async def test_an_idle_session_is_cut_when_its_grace_is_over_and_counted() -> None:
    setup = Setup(mode="tcp", drain=DrainSettings(tcp_s=0.2), pool_timeouts=PoolTimeouts())
    async with proxy("express", shouting, shouting, setup=setup) as lb:
        client = await lb.client()
        await client.send(b"x")
        assert await heard(client, 1) == b"X"
        index = 0 if lb.count(Counter.TCP, 0) else 1
        lb.publish(1 - index)
        began = trio.current_time()
        assert await heard(client, 1) == b""
        assert trio.current_time() - began >= 0.15
        assert lb.count(Counter.CUT, index) == 1
        await wait_until(lambda: lb.drained)
