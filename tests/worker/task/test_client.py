"""The client's side of a connection: heads in time, ends noticed, and a goodbye that swallows nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.model import ListenerView
from lbproxy.settings import ListenerLimits, ListenerSettings, ListenerTimeouts
from lbproxy.wire.head import Refused
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.handover import READ_AHEAD_BYTES
from lbproxy.worker.io.stream import StreamBroken
from lbproxy.worker.task import client as module
from lbproxy.worker.task.client import Client, ClientGone

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LISTENER = ListenerView(
    1,
    0,
    ListenerSettings(
        "public",
        Address("", 80),
        limits=ListenerLimits(header_bytes=200),
        timeouts=ListenerTimeouts(header_s=10, idle_s=75),
    ),
)
virtual = trio_test(clock="autojump", timeout_s=1000)
STRANGER = ClientFacts(b"192.0.2.7", False, b"http")


class MemoryStream:
    """A ByteStream whose peer is the test."""

    def __init__(self) -> None:
        self.say, self._heard = trio.open_memory_channel[bytes](100)
        self.put_bytes = b""
        self.half_closed = False
        self.broken = False

    pending = 0

    async def receive(self) -> bytes:
        if self.broken:
            raise StreamBroken("reset")
        try:
            return await self._heard.receive()
        except trio.EndOfChannel:
            return b""

    def put(self, data: bytes) -> None:
        self.put_bytes += data

    async def flush(self, stall_s: float) -> None:
        await trio.lowlevel.checkpoint()

    def half_close(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self._heard.close()

    reset = close


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Client, MemoryStream]]:
    stream = MemoryStream()
    yield Client(stream, LISTENER, STRANGER), stream
    stream.close()
    stream.say.close()


@virtual
async def test_a_head_is_taken_and_what_is_behind_it_stays() -> None:
    async with connected() as (client, stream):
        await stream.say.send(HEAD + b"body")
        assert await client.read_head() == HEAD
        assert client.buffer == b"body"


@virtual
async def test_pipelined_heads_come_one_after_the_other() -> None:
    async with connected() as (client, stream):
        await stream.say.send(HEAD * 3)
        assert [await client.read_head() for _ in range(3)] == [HEAD] * 3
        assert not client.buffer


@pytest.mark.parametrize("cut", range(1, len(HEAD)))
@virtual
async def test_a_head_is_found_at_every_cut(cut: int) -> None:
    async with connected() as (client, stream):
        await stream.say.send(HEAD[:cut])
        await stream.say.send(HEAD[cut:])
        assert await client.read_head() == HEAD


@virtual
async def test_a_client_that_stays_silent_is_let_go_without_a_word() -> None:
    async with connected() as (client, _stream):
        began = trio.current_time()
        assert await client.read_head() is None
        assert trio.current_time() - began == pytest.approx(75)
        assert client.idle_scope is None


@virtual
async def test_the_time_for_a_head_counts_from_its_first_byte_however_it_dribbles() -> None:
    async with connected() as (client, stream), trio.open_nursery() as nursery:

        async def dribble() -> None:
            await trio.sleep(50)
            for byte in HEAD:
                await stream.say.send(bytes([byte]))
                await trio.sleep(1)

        nursery.start_soon(dribble)
        began = trio.current_time()
        with pytest.raises(Refused) as refused:
            await client.read_head()
        assert refused.value.status == 408
        assert trio.current_time() - began == pytest.approx(60)
        nursery.cancel_scope.cancel()


@virtual
async def test_a_client_that_leaves_gets_no_answer() -> None:
    for said in (b"", HEAD[:5]):
        async with connected() as (client, stream):
            if said:
                await stream.say.send(said)
            stream.say.close()
            assert await client.read_head() is None


@virtual
async def test_a_broken_connection_is_an_end() -> None:
    async with connected() as (client, stream):
        stream.broken = True
        assert await client.read_head() is None
        with pytest.raises(ClientGone):
            await client.watch()


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"\x16\x03\x01", 400), (b"GET / HTTP/1.1\n", 400), (b"GET / HTTP/1.1\r\nX: " + b"x" * 200, 431)],
)
@virtual
async def test_what_cannot_become_a_head_is_refused_as_soon_as_that_shows(data: bytes, status: int) -> None:
    async with connected() as (client, stream):
        await stream.say.send(data)
        with pytest.raises(Refused) as refused:
            await client.read_head()
        assert refused.value.status == status


@virtual
async def test_an_idle_client_can_be_told_to_go() -> None:
    async with connected() as (client, _stream), trio.open_nursery() as nursery:
        heads: list[bytes | None] = []

        async def read() -> None:
            heads.append(await client.read_head())

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert client.idle_scope is not None
        client.idle_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert heads == [None]


@virtual
async def test_a_client_that_has_begun_is_not_idle() -> None:
    async with connected() as (client, stream), trio.open_nursery() as nursery:
        await stream.say.send(HEAD[:5])
        nursery.start_soon(client.read_head)
        await trio.testing.wait_all_tasks_blocked()
        assert client.idle_scope is None
        nursery.cancel_scope.cancel()


@virtual
async def test_a_watched_client_that_ends_its_side_is_gone() -> None:
    async with connected() as (client, stream), trio.open_nursery() as nursery:
        nursery.start_soon(stream.say.send, HEAD)
        await trio.testing.wait_all_tasks_blocked()
        stream.say.close()
        with pytest.raises(ClientGone):
            await client.watch()
        assert client.buffer == HEAD


@virtual
async def test_a_client_that_says_too_much_while_it_is_watched_is_not_read_any_more() -> None:
    async with connected() as (client, stream):
        for _ in range(20):
            await stream.say.send(bytes(16 * 1024))
        with trio.move_on_after(100):
            await client.watch()
        assert len(client.buffer) == READ_AHEAD_BYTES


# Letting go


@virtual
async def test_a_lingering_close_ends_our_side_and_drops_what_comes() -> None:
    async with connected() as (client, stream):
        await stream.say.send(b"more")
        began = trio.current_time()
        await client.linger(upload=False)
        assert stream.half_closed
        assert trio.current_time() - began == pytest.approx(module.LINGER_S)


@virtual
async def test_a_lingering_close_is_over_when_the_client_is() -> None:
    async with connected() as (client, stream):
        await stream.say.send(b"more")
        stream.say.close()
        began = trio.current_time()
        await client.linger(upload=False)
        assert trio.current_time() == began


@virtual
async def test_a_lingering_close_drops_only_so_much() -> None:
    async with connected() as (client, stream):
        for _ in range(20):
            await stream.say.send(bytes(16 * 1024))
        began = trio.current_time()
        await client.linger(upload=False)
        assert trio.current_time() == began
        assert stream._heard.statistics().current_buffer_used == 16


@virtual
async def test_an_upload_that_was_answered_early_may_go_on_while_it_moves() -> None:
    async with connected() as (client, stream), trio.open_nursery() as nursery:

        async def upload() -> None:
            for _ in range(10):
                await stream.say.send(bytes(64 * 1024))
                await trio.sleep(1)

        nursery.start_soon(upload)
        began = trio.current_time()
        await client.linger(upload=True)
        assert trio.current_time() - began == pytest.approx(9 + module.LINGER_UPLOAD_STALL_S)
        assert len(client.buffer) <= 64 * 1024


@virtual
async def test_an_endless_upload_is_let_go() -> None:
    async with connected() as (client, stream), trio.open_nursery() as nursery:

        async def upload() -> None:
            while True:
                await stream.say.send(b"x")
                await trio.sleep(1)

        nursery.start_soon(upload)
        began = trio.current_time()
        await client.linger(upload=True)
        assert trio.current_time() - began == pytest.approx(module.LINGER_UPLOAD_S)
        nursery.cancel_scope.cancel()
