"""The front door, with the PROXY header as its stage: both lanes and TCP mode behind it, deadline, count and end."""

import pytest
import trio
from support.peer import Peer
from support.proxy import GET, OK, Setup, answering, get, lanes, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import ListenerLimits, ListenerTimeouts

from_one = b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 80\r\n"
LISTENER_CELL = 1


def behind(*trusted: str, **texts: object) -> Setup:
    return Setup(proxy_protocol="accept", trusted=trusted or ("127.0.0.0/8",), **texts)  # type: ignore[arg-type]


@lanes
@pytest.mark.parametrize("step", [0, 1], ids=["at_once", "byte_by_byte"])
@trio_test(timeout_s=8)
async def test_the_announced_address_is_the_client(lane: str, step: int) -> None:
    async with proxy(lane, answering(OK), setup=behind()) as lb:
        client = await lb.client(before=from_one if lb.is_tls or not step else b"")
        data = (b"" if lb.is_tls or not step else from_one) + get(b"/", b"X-Forwarded-For: 6.6.6.6")
        await client.dribble(data, step or len(data))
        assert (await client.answer()).status == 200
        await client.send(GET)
        assert (await client.answer()).status == 200
        assert [record.client for record in await lb.wait_records(2)] == [b"192.0.2.7"] * 2
        received = lb.backends[0].received
        assert received.count(b"X-Forwarded-For: 192.0.2.7\r\n") == 2
        assert b"6.6.6.6" not in received, "the announced address is asked whether it is trusted, not the balancer"


@lanes
@trio_test(timeout_s=8)
async def test_an_announced_address_that_is_trusted_may_forward_for_others(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=behind("127.0.0.0/8", "192.0.2.0/24")) as lb:
        client = await lb.client(before=from_one)
        await client.send(get(b"/", b"X-Forwarded-For: 198.51.100.9"))
        assert (await client.answer()).status == 200
        assert b"X-Forwarded-For: 198.51.100.9, 192.0.2.7\r\n" in lb.backends[0].received


@lanes
@trio_test(timeout_s=8)
async def test_a_local_header_leaves_the_peer_as_it_is(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=behind()) as lb:
        client = await lb.client(before=b"PROXY UNKNOWN\r\n")
        await client.send(GET)
        assert (await client.answer()).status == 200
        (record,) = await lb.wait_records(1)
        assert record.client == b"127.0.0.1"


@pytest.mark.parametrize("said", [GET, b"PROXY TCP4 nonsense\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x11\x11\x00\x00"])
@trio_test(timeout_s=8)
async def test_what_announces_nothing_is_let_go_of_and_told_once_a_minute(said: bytes) -> None:
    async with proxy("express", answering(OK), setup=behind()) as lb:
        lb.expected_notices = 1
        for _ in range(3):
            client = await lb.client()
            await client.send(said)
            assert await client.rest() == b""
        assert "a client was let go of" in lb.notices[0]
        assert lb.backends[0].peers == []


@trio_test(timeout_s=8)
async def test_a_peer_that_is_not_trusted_is_let_go_of_whatever_it_announces() -> None:
    async with proxy("express", answering(OK), setup=behind("10.0.0.0/8")) as lb:
        lb.expected_notices = 1
        client = await lb.client()
        assert await client.rest() == b""
        assert "127.0.0.1 is not in trusted_proxies" in lb.notices[0]
        client.close()
        lb._clients.clear()  # it was never counted


@trio_test(timeout_s=8)
async def test_a_header_that_does_not_come_is_waited_for_as_long_as_a_head() -> None:
    async with proxy("express", answering(OK), setup=behind(timeouts=ListenerTimeouts(header_s=0.3))) as lb:
        lb.expected_notices = 1
        client = await lb.client()
        await client.send(from_one[:10])
        began = trio.current_time()
        assert await client.rest() == b""
        assert 0.2 < trio.current_time() - began < 3
        assert "no complete header within 0.3s" in lb.notices[0]


@trio_test(timeout_s=8)
async def test_clients_at_the_door_count_among_the_connections() -> None:
    async with proxy("express", answering(OK), setup=behind(limits=ListenerLimits(connections=2))) as lb:
        waiting = [await lb.client() for _ in range(2)]
        await wait_until(lambda: lb.grid.sum(LISTENER_CELL, Counter.CONNECTIONS) == 2)
        late = await lb.client()
        await late.send(from_one + GET)
        await trio.sleep(0.2)
        assert lb.grid.sum(LISTENER_CELL, Counter.CONNECTIONS) == 2
        waiting[0].close()
        assert (await late.answer()).status == 200


@trio_test(timeout_s=8)
async def test_in_tcp_mode_early_bytes_reach_the_backend_first() -> None:
    async def echo(peer: Peer) -> None:
        while data := await peer.sock.recv(4096):
            await peer.send(data)
        peer.end()
        await peer.wait_ended()

    async with proxy("express", echo, setup=behind(mode="tcp")) as lb:
        client = await lb.client()
        await client.send(from_one + b"hello ")
        assert await client.exactly(6) == b"hello "
        await client.send(b"world")
        assert await client.exactly(5) == b"world"
        client.end()
        assert await client.rest() == b""
        (record,) = await lb.wait_records(1)
        assert (record.client, record.request_bytes, record.response_bytes) == (b"192.0.2.7", 11, 11)
