"""A pool whose backends are told by a PROXY header who the client is: no connection serves two requests."""

import pytest
from support.peer import Peer
from support.proxy import GET, LANES, OK, Setup, get, post, post_chunked, proxy
from support.trio_test import trio_test
from support.ws import upgrade_request

from lbproxy.wire.proxy_protocol import read_proxy_header

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


async def announced(peer: Peer) -> str:
    """The client's address in the header in front of the request, which is taken away."""
    while not peer.buffer or read_proxy_header(bytes(peer.buffer)) is None:
        assert await peer.more()
    read = read_proxy_header(bytes(peer.buffer))
    assert read is not None
    del peer.buffer[: read[1]]
    return f"{read[0].ip}:{read[0].port}"


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("lane", LANES)
@trio_test(timeout_s=8)
async def test_every_request_has_a_connection_that_begins_with_its_client(lane: str, version: str) -> None:
    seen: list[str] = []

    async def script(peer: Peer) -> None:
        seen.append(await announced(peer))
        await peer.request()
        await peer.send(OK)
        await peer.wait_ended()  # it would take a second request, and must not get one

    async with proxy(lane, script, setup=Setup(send_proxy=version, trusted=("127.0.0.1",))) as lb:
        client = await lb.client()
        for asked in (GET, GET, post(b"abc"), post(b"x" * 100_000), post_chunked(b"a", b"b"), GET):
            await client.send(asked)
            assert (await client.answer()).status == 200
        itself = f"127.0.0.1:{client.sock.getsockname()[1]}"
        assert seen == [itself] * 6
        await client.send(get(b"/", b"X-Forwarded-For: 6.6.6.6, 192.0.2.7:99"))
        assert (await client.answer()).status == 200
        assert seen[6:] == ["192.0.2.7:0"]
        assert len(lb.backends[0].peers) == 7


@pytest.mark.parametrize("lane", LANES)
@trio_test(timeout_s=8)
async def test_a_websocket_begins_with_its_client_too(lane: str) -> None:
    seen: list[str] = []

    async def script(peer: Peer) -> None:
        seen.append(await announced(peer))
        await peer.request()
        await peer.send(SWITCHED)
        await peer.wait_ended()

    async with proxy(lane, script, setup=Setup(send_proxy="v2")) as lb:
        client = await lb.client()
        await client.send(upgrade_request())
        assert (await client.head()).status == 101
        assert seen == [f"127.0.0.1:{client.sock.getsockname()[1]}"]
        client.close()


@trio_test(timeout_s=8)
async def test_tcp_mode_sends_the_header_before_the_client_has_said_anything() -> None:
    seen: list[str] = []

    async def script(peer: Peer) -> None:
        seen.append(await announced(peer))
        await peer.send(b"220 hello")
        assert await peer.exactly(4) == b"QUIT"

    async with proxy("express", script, setup=Setup(send_proxy="v1", mode="tcp")) as lb:
        client = await lb.client()
        assert await client.exactly(9) == b"220 hello"
        await client.send(b"QUIT")
        await client.wait_ended()
        client.end()
        assert seen == [f"127.0.0.1:{client.sock.getsockname()[1]}"]
        (record,) = await lb.wait_records(1)
        assert (record.request_bytes, record.response_bytes) == (4, 9)


@pytest.mark.parametrize("lane", LANES)
@trio_test(timeout_s=8)
async def test_a_backend_that_is_to_get_headers_from_now_on_gets_no_kept_connection(lane: str) -> None:
    first_bytes: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.more()
        first_bytes.append(bytes(peer.buffer[:5]))
        if first_bytes[-1] == b"PROXY":
            await announced(peer)
        while True:
            await peer.request()
            await peer.send(OK)

    async with proxy(lane, script) as lb:
        client = await lb.client()
        for version, connections in (("", 1), ("", 1), ("v1", 2), ("v1", 3), ("", 4), ("", 4)):
            object.__setattr__(lb.setup, "send_proxy", version)
            lb.publish(0)
            await client.send(GET)
            assert (await client.answer()).status == 200
            assert len(lb.backends[0].peers) == connections, version
        assert first_bytes == [b"GET /", b"PROXY", b"PROXY", b"GET /"]
