"""A byte stream as the task lane uses it, over real sockets: nothing lost, nothing written twice, every end told."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from support.relaying import Peer, pair
from support.trio_test import trio_test

from lbproxy.worker.io.stream import EAGER_READS, READ_BYTES, SocketStream, StreamBroken, StreamStalled

LARGE = bytes(range(256)) * 32_768  # 8 MiB: more than the kernel buffers


@asynccontextmanager
async def linked(*, tcp: bool = True) -> AsyncIterator[tuple[SocketStream, Peer]]:
    ours, theirs = pair(tcp)
    stream, peer = SocketStream(ours), Peer(theirs)
    try:
        yield stream, peer
    finally:
        stream.close()
        peer.sock.close()


@trio_test
async def test_what_the_peer_says_is_received_until_its_end() -> None:
    async with linked() as (stream, peer):
        await peer.send(b"hello")
        assert await stream.receive() == b"hello"
        peer.end()
        assert await stream.receive() == b""
        assert await stream.receive() == b""


@trio_test
async def test_a_read_waits_for_something_to_come() -> None:
    async with linked() as (stream, peer), trio.open_nursery() as nursery:
        received = []

        async def read() -> None:
            received.append(await stream.receive())

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert received == []
        await peer.send(b"late")
        await trio.testing.wait_all_tasks_blocked()
        assert received == [b"late"]


@trio_test
async def test_a_peer_that_always_has_more_does_not_keep_others_waiting() -> None:
    async with linked() as (stream, peer), trio.open_nursery() as nursery:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(count)
        for _ in range(2 * EAGER_READS + 2):
            peer.fill()
            assert 0 < len(await stream.receive()) <= READ_BYTES
        assert turns >= 1
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_cancelled_read_loses_nothing() -> None:
    """A client that pipelines: its next request must survive the end of the watch over it."""
    async with linked() as (stream, peer):
        data = bytes(range(4 * EAGER_READS))
        received = b""
        for number in data:
            await peer.send(bytes([number]))
            with trio.CancelScope() as scope:
                scope.cancel()
                received += await stream.receive()
        peer.end()
        while more := await stream.receive():
            received += more
        assert received == data


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@trio_test
async def test_what_is_put_goes_out_at_once_if_there_is_room(tcp: bool) -> None:
    async with linked(tcp=tcp) as (stream, peer):
        stream.put(b"now")
        assert stream.pending == 0
        assert await peer.receive(3) == b"now"


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@trio_test
async def test_what_does_not_fit_is_kept_and_sent_in_order(tcp: bool) -> None:
    async with linked(tcp=tcp) as (stream, peer), trio.open_nursery() as nursery:
        stream.put(LARGE)
        stream.put(b"behind it")
        assert 0 < stream.pending < len(LARGE) + 9
        nursery.start_soon(stream.flush, 5.0)
        assert await peer.receive(len(LARGE) + 9) == LARGE + b"behind it"
    assert stream.pending == 0


@trio_test
async def test_a_cancelled_flush_neither_loses_nor_repeats_a_byte() -> None:
    async with linked() as (stream, peer), trio.open_nursery() as nursery:
        stream.put(LARGE)
        received = bytearray()

        async def read() -> None:
            received.extend(await peer.receive(len(LARGE)))

        nursery.start_soon(read)
        while stream.pending:
            with trio.move_on_after(0.002):
                await stream.flush(5.0)
        nursery.cancel_scope.deadline = trio.current_time() + 5
        while len(received) < len(LARGE):
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert received == LARGE


@trio_test
async def test_a_peer_that_takes_nothing_is_given_up() -> None:
    async with linked() as (stream, _peer):
        stream.put(LARGE)
        began = trio.current_time()
        with pytest.raises(StreamStalled, match=r"0\.05s"):
            await stream.flush(0.05)
        assert trio.current_time() - began < 2


@trio_test
async def test_a_peer_that_takes_a_little_now_and_then_is_not_given_up() -> None:
    async with linked() as (stream, peer), trio.open_nursery() as nursery:
        stream.put(LARGE[: 4 << 20])
        nursery.start_soon(stream.flush, 1.0)
        received = 0
        while received < 4 << 20:
            await trio.sleep(0.01)
            received += len(await peer.sock.recv(1 << 20))
        assert not nursery.cancel_scope.cancel_called


@trio_test
async def test_a_flush_of_nothing_is_nothing() -> None:
    async with linked() as (stream, _peer):
        await stream.flush(0)


@trio_test
async def test_a_reset_is_told_to_who_reads_and_to_who_writes() -> None:
    async with linked() as (stream, peer):
        peer.reset()
        with pytest.raises(StreamBroken):
            await stream.receive()
        with pytest.raises(StreamBroken):
            stream.put(b"x")


@trio_test
async def test_a_reset_while_we_wait_to_write_is_told() -> None:
    async with linked() as (stream, peer):
        stream.put(LARGE)
        async with trio.open_nursery() as nursery:

            async def flush() -> None:
                with pytest.raises(StreamBroken):
                    await stream.flush(5.0)

            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            peer.reset()


@trio_test
async def test_closing_wakes_who_waits() -> None:
    async with linked() as (stream, _peer), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(StreamBroken, match="our side"):
                await stream.receive()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        stream.close()


@trio_test
async def test_a_half_close_ends_one_direction() -> None:
    async with linked() as (stream, peer):
        stream.half_close()
        assert await peer.receive(1) == b""
        await peer.send(b"still here")
        assert await stream.receive() == b"still here"
        stream.half_close()


@trio_test
async def test_a_half_close_of_what_is_gone_is_no_error() -> None:
    async with linked() as (stream, peer):
        peer.reset()
        stream.half_close()


@trio_test
async def test_a_reset_cannot_be_mistaken_for_an_end() -> None:
    async with linked() as (stream, peer):
        stream.reset()
        with pytest.raises(ConnectionResetError):
            await peer.receive(1)


@trio_test
async def test_closing_twice_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    stream = SocketStream(ours)
    stream.close()
    stream.close()
    stream.reset()


@trio_test
async def test_what_is_closed_before_it_is_waited_for_is_broken() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        stream = SocketStream(ours)
        stream.put(bytes(1 << 22))
        assert stream.pending
        stream.close()
        for _ in range(2):
            with pytest.raises(StreamBroken):
                await stream.flush(1.0)
