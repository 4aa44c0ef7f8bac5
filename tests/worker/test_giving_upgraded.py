"""A connection goes from an old worker to a new one after its 101: in the middle of a frame, or as opaque bytes."""

import pytest
import trio
from support.moving import workers
from support.peer import Peer
from support.proxy import Setup, get
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import DrainSettings

UPGRADE = get(
    b"/chat",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"User-Agent: tester",
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def frame(data: bytes, *, masked: bool, first: int = 0x82) -> bytes:
    """A short frame; the mask changes nothing."""
    return bytes((first, len(data) | (0x80 if masked else 0))) + (bytes(4) if masked else b"") + data


async def switched(client: Peer) -> None:
    head = await client.until(b"\r\n\r\n")
    assert b" 101 " in head, head


async def echoing(peer: Peer) -> None:
    """A WebSocket server: gives back the payload of each short frame, and answers a Close."""
    await peer.request()
    await peer.send(SWITCH % b"websocket")
    while True:
        first, size = await peer.exactly(2)
        await peer.exactly(4)
        data = await peer.exactly(size & 0x7F)
        if first == 0x88:
            await peer.send(frame(data, masked=False, first=first))
            return
        await peer.send(frame(data, masked=False, first=first))


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 9, 11])
@trio_test(timeout_s=8)
async def test_a_websocket_moves_in_the_middle_of_a_frame_and_its_goodbye_comes_at_the_end_of_one(cut: int) -> None:
    setup = Setup(drain=DrainSettings(websocket_s=0.2, goodbye_s=1.0))
    async with workers(echoing, setup=setup) as lb:
        client = await lb.now.client()
        await client.send(UPGRADE)
        await switched(client)
        whole = frame(b"hello", masked=True)
        await client.send(whole[:cut])
        await trio.sleep(0.01)
        await lb.replace()
        await lb.replace()
        assert lb.whys == ["", ""]
        await client.send(whole[cut:])
        assert await client.exactly(7) == frame(b"hello", masked=False)
        assert lb.now.count(Counter.WEBSOCKET) == lb.now.count(Counter.LEASES) == 1
        await client.send(frame(b"last", masked=True)[:3])
        await lb.replace()
        lb.now.publish()
        await trio.sleep(0.05)
        await client.send(frame(b"last", masked=True)[3:])
        heard = await client.exactly(6) + await client.until(b"going away")
        assert heard == frame(b"last", masked=False) + b"\x88\x0c\x03\xe9going away"
        await client.send(frame(b"\x03\xe9", masked=True, first=0x88))
        assert await client.rest() == b""
        (record,) = await lb.now.wait_records(1)
        assert (record.status, record.head.target, record.error) == (101, b"/chat", None)
        assert record.head.fields[b"user-agent"] == [b"tester"]
        assert record.request_bytes == 11 + 10 + 8
        assert lb.now.count(Counter.WEBSOCKETS_CLOSED) == 1
        assert lb.now.drained == [record.served_by]


@trio_test(timeout_s=8)
async def test_a_websocket_that_says_goodbye_is_finished_where_it_is() -> None:
    setup = Setup(drain=DrainSettings(websocket_s=0.0, goodbye_s=2.0))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCH % b"websocket")
        await told.wait()

    told = trio.Event()
    async with workers(script, setup=setup) as lb:
        client = await lb.now.client()
        await client.send(UPGRADE)
        await switched(client)
        lb.now.publish()
        old = await lb.replace()
        assert lb.whys == []
        told.set()
        assert await client.exactly(14) == b"\x88\x0c\x03\xe9going away"
        await client.send(frame(b"\x03\xe9", masked=True, first=0x88))
        assert await client.rest() == b""
        await old.empty()


@trio_test(timeout_s=8)
async def test_another_protocol_moves_as_bytes_and_keeps_its_line() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCH % b"shout")
        while data := await peer.sock.recv(4096):
            await peer.send(data.upper())

    async with workers(script) as lb:
        lb.now.publish(0, upgrades=("shout",))
        client = await lb.now.client()
        await client.send(get(b"/shout", b"Connection: Upgrade", b"Upgrade: shout"))
        await switched(client)
        await lb.replace()
        await client.send(b"abc")
        assert await client.exactly(3) == b"ABC"
        assert lb.now.count(Counter.TCP) == 1
        client.end()
        assert await client.rest() == b""
        (record,) = await lb.now.wait_records(1)
        assert (record.status, record.head.target, record.request_bytes) == (101, b"/shout", 3)
