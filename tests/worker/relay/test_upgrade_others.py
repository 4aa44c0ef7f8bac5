"""Upgrades to other protocols than WebSocket (pool.upgrades): granted by a real 101, then relayed as bytes."""

from collections.abc import Awaitable, Callable

import pytest
from support.peer import Peer
from support.proxy import OK, Setup, get, lanes, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import DrainSettings


async def head_of(client: Peer) -> bytes:
    return (await client.until(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")


def granting(token: bytes, said: bytes = b"") -> Callable[[Peer], Awaitable[None]]:
    """A backend that reads one request and answers 101; what is said then is echoed."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %b\r\n\r\n%b" % (token, said)
        )
        await peer.wait_ended()

    return script


def asking(*fields: bytes, method: bytes = b"GET") -> bytes:
    return get(b"/", b"Connection: Upgrade", *fields, method=method)


@lanes
@trio_test(timeout_s=8)
async def test_a_listed_protocol_is_relayed_as_bytes_once_it_is_granted(lane: str) -> None:
    async with proxy(lane, granting(b"Foo/2", b"\x88\0 first")) as lb:
        lb.publish(0, upgrades=("foo/2",))
        client = await lb.client()
        await client.send(asking(b"Upgrade: bar, websocket", b"Upgrade: FOO/2", b"Cookie: a=b") + b"\x88\x80early")
        head = await head_of(client)
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert head.endswith(b"Connection: Upgrade\r\nUpgrade: Foo/2")
        assert await client.exactly(8) == b"\x88\0 first"
        asked = lb.backends[0].received
        assert b"\r\nConnection: Upgrade\r\nUpgrade: FOO/2\r\n\r\n" in asked
        await wait_until(lambda: lb.backends[0].received.endswith(b"\r\n\r\n\x88\x80early"))
        assert (lb.count(Counter.TCP), lb.count(Counter.WEBSOCKET), lb.leases) == (1, 0, 1)
        client.end()  # a half-close passes
        (record,) = await lb.wait_records(1)
        assert (record.status, record.request_bytes, record.response_bytes, record.error) == (101, 7, 8, None)
        assert not [one for one in lb.router.tally.take().incidents if one.name == "websocket_close"]


@lanes
@pytest.mark.parametrize("body", [b"{}", b"{}" * 40_000])
@trio_test(timeout_s=8)
async def test_a_request_with_a_body_may_upgrade_when_it_is_sent(lane: str, body: bytes) -> None:
    async with proxy(lane, granting(b"tcp")) as lb:
        lb.publish(0, upgrades=("tcp",))
        client = await lb.client()
        await client.send(asking(b"Upgrade: tcp", b"Content-Length: %d" % len(body), method=b"POST") + body + b"behind")
        assert (await head_of(client)).startswith(b"HTTP/1.1 101 ")
        await wait_until(lambda: lb.backends[0].received.endswith(body + b"behind"))


STRANGE = {
    "another protocol than asked": b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: bar\r\n\r\n",
    "two protocols": b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: foo, bar\r\n\r\n",
    "two lines": b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: foo\r\nUpgrade: foo\r\n\r\n",
    "no Connection": b"HTTP/1.1 101 x\r\nUpgrade: foo\r\n\r\n",
    "nothing": b"HTTP/1.1 101 x\r\nConnection: upgrade\r\n\r\n",
}


@lanes
@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
@trio_test(timeout_s=8)
async def test_a_101_that_was_not_asked_for_is_a_bad_gateway(lane: str, answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.wait_ended()

    async with proxy(lane, script) as lb:
        lb.publish(0, upgrades=("foo", "bar", "websocket"))
        answered = await lb.ask(asking(b"Upgrade: foo"))
        assert answered.status == 502
        assert answered.get(b"proxy-status") == b"edge; error=http_upgrade_failed"


@lanes
@trio_test(timeout_s=8)
async def test_a_101_in_the_middle_of_the_request_is_a_bad_gateway(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n")
        await peer.wait_ended()

    async with proxy(lane, script) as lb:
        lb.publish(0, upgrades=("foo",), buffer_request_bytes=0)
        client = await lb.client()
        await client.send(asking(b"Upgrade: foo", b"Content-Length: 100000", method=b"POST") + b"a part")
        assert (await client.answer()).status == 502


@lanes
@trio_test(timeout_s=8)
async def test_what_is_not_listed_is_an_ordinary_request(lane: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK)

    async with proxy(lane, script) as lb:
        lb.publish(0, upgrades=("foo",))
        client = await lb.client()
        unlisted = (asking(b"Upgrade: websocket"), asking(b"Upgrade: bar"), asking(b"Upgrade: foo, h2c"))
        for request in (*unlisted, get(b"/", b"Upgrade: foo")):
            await client.send(request)
            assert (await client.answer()).status == 200
        assert b"upgrade" not in lb.backends[0].received.lower()
        assert len(lb.backends[0].peers) == 1
        assert lb.leases == 0


@lanes
@trio_test(timeout_s=8)
async def test_a_drain_gives_it_the_time_of_tcp_and_cuts_it_then(lane: str) -> None:
    setup = Setup(drain=DrainSettings(websocket_s=30, tcp_s=0.05, request_s=30))
    async with proxy(lane, granting(b"foo"), setup=setup) as lb:
        lb.publish(0, upgrades=("foo",))
        client = await lb.client()
        await client.send(asking(b"Upgrade: foo"))
        await head_of(client)
        lb.publish(upgrades=("foo",))
        (record,) = await lb.wait_records(1)
        assert record.error == "cut"
        assert lb.count(Counter.CUT) == 1
        await wait_until(lambda: lb.drained)
