"""HTTP.md, "a body that trickles": waited for up to a size and for a second, then streamed both ways at once."""

import pytest
import trio
from support.peer import Peer
from support.proxy import OK, answering, get, lanes, post, proxy, wait_until
from support.trio_test import trio_test


@lanes
@pytest.mark.parametrize("coded", ["length", "chunked"])
@trio_test(timeout_s=8)
async def test_a_body_that_trickles_streams_both_ways_after_a_second(lane: str, coded: str) -> None:
    """The client says more only when it has heard something: waiting for the whole body would wait for ever."""

    async def echo(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            await peer.until(b"%d" % number)
            await peer.send(b"1\r\n%d\r\n" % number)
        await peer.send(b"0\r\n\r\n")
        await peer.wait_ended()

    framing = b"Content-Length: 3" if coded == "length" else b"Transfer-Encoding: chunked"
    pieces = [b"0", b"1", b"2"] if coded == "length" else [b"1\r\n0\r\n", b"1\r\n1\r\n", b"1\r\n2\r\n0\r\n\r\n"]
    async with proxy(lane, echo) as lb:
        client = await lb.client()
        began = trio.current_time()
        await client.send(get(b"/", framing, method=b"POST") + pieces[0])
        await client.head()
        await client.until(b"0\r\n")
        assert 0.9 <= trio.current_time() - began < 2
        for number in (1, 2):
            await client.send(pieces[number])
            await client.until(b"%d\r\n" % number)


@lanes
@trio_test(timeout_s=8)
async def test_a_body_that_keeps_coming_slowly_is_not_waited_for_longer_than_a_second(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        await client.send(post(bytes(20))[:-20])
        began = trio.current_time()
        for _ in range(4):
            await trio.sleep(0.35)
            await client.send(b"x")
        assert lb.backends[0].received.endswith(b"xxx"), "it streams by now"
        assert trio.current_time() - began < 2.5
        await client.send(b"x" * 16)
        assert (await client.answer()).status == 200


@lanes
@trio_test(timeout_s=8)
async def test_without_a_buffer_a_body_streams_from_its_first_byte(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        lb.publish(0, buffer_request_bytes=0)
        client = await lb.client()
        await client.send(post(bytes(20))[:-19])
        await wait_until(lambda: lb.backends[0].received.endswith(b"\r\n\r\n\0"))
        await client.send(bytes(19))
        assert (await client.answer()).status == 200


@lanes
@trio_test(timeout_s=8)
async def test_a_larger_buffer_is_filled_before_a_backend_is_claimed(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        lb.publish(0, buffer_request_bytes=200_000)
        client = await lb.client()
        await client.send(post(bytes(150_000))[:-1])
        await trio.sleep(0.3)
        assert lb.leases == 0
        await client.send(b"x")
        assert (await client.answer()).status == 200
        assert lb.backends[0].received.endswith(b"\0x")
