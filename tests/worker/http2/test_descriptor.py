"""The socket of an HTTP/2 connection: what was put leaves together, a full socket is waited for, the end is gentle."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import trio
import trio.lowlevel
from support.proxy import wait_until
from support.trio_test import trio_test

from lbproxy.telemetry.events import Event
from lbproxy.worker.http2.descriptor import MOST_PUT_BYTES, Http2Descriptor
from lbproxy.worker.io.reactor import READ, Reactor


class Wire:
    """A wire connection that gives what it was given."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.is_paused = False
        self.output = SimpleNamespace(put_bytes=0, abandon=lambda: None)
        self.streams: dict[int, object] = {}
        self.kept = b""

    def take(self) -> bytes:
        return self.waiting.pop(0) if self.waiting else b""


class Recorded(Http2Descriptor):
    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        super().__init__(reactor, sock, Wire())  # type: ignore[arg-type]
        self.got: list[object] = []

    def on_bytes(self, data: bytes) -> None:
        self.got.append(data)

    def on_room(self) -> None:
        self.got.append("room")

    def on_closed(self, why: str) -> None:
        self.got.append(why)

    def on_deadline(self) -> None:
        self.close("in time")


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Recorded, trio.socket.SocketType]]:
    events: list[Event] = []
    reactor = Reactor(events.append)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    peer = trio.socket.from_stdlib_socket(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await trio.lowlevel.checkpoint()
        side = Recorded(reactor, ours)
        side.listen()
        yield side, peer
        side.close("over")
        nursery.cancel_scope.cancel()
    peer.close()
    reactor.close()
    assert not events


@trio_test(timeout_s=8)
async def test_what_is_put_in_a_batch_leaves_together_and_a_full_socket_is_waited_for() -> None:
    async with connected() as (side, peer):
        side.wire.waiting += [b"a", b"b"]  # type: ignore[attr-defined]
        side.plan_flush()
        side.plan_flush()
        assert await peer.recv(10) == b"ab"
        big = b"x" * 1_000_000
        side.wire.waiting += [big, b"end"]  # type: ignore[attr-defined]
        side.flush()
        assert side.unsent
        got = b""
        while not got.endswith(b"end"):
            got += await peer.recv(1 << 16)
        assert got == big + b"end"
        await wait_until(lambda: side.got == ["room"])
        await peer.send(b"hello")
        await wait_until(lambda: side.got == ["room", b"hello"])


@trio_test(timeout_s=8)
async def test_a_client_that_takes_nothing_is_listened_to_until_much_waits_and_again_when_it_is_sent() -> None:
    async with connected() as (side, peer):
        side.wire.waiting.append(bytes(1_000_000))  # type: ignore[attr-defined]
        side.flush()
        await peer.send(b"first")
        await wait_until(lambda: side.got == [b"first"])
        side.wire.output.put_bytes = MOST_PUT_BYTES + 1
        await peer.send(b"second")
        await wait_until(lambda: not side.client_events & READ)
        side.wire.output.put_bytes = 0
        received = 0
        while received < 1_000_000:
            received += len(await peer.recv(1 << 16))
        await wait_until(lambda: set(side.got) == {b"first", "room", b"second"})


@trio_test(timeout_s=8)
async def test_nothing_is_read_while_the_connection_pauses() -> None:
    async with connected() as (side, peer):
        side.wire.is_paused = True
        await peer.send(b"later")
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        assert not side.got
        side.wire.is_paused = False
        await wait_until(lambda: side.got == [b"later"])


@trio_test(timeout_s=8)
async def test_a_gentle_end_sends_what_waits_and_drops_what_comes() -> None:
    async with connected() as (side, peer):
        side.wire.waiting += [b"last words"]  # type: ignore[attr-defined]
        side.close_gently()
        assert await peer.recv(20) == b"last words"
        assert await peer.recv(20) == b""
        await peer.send(b"too late")
        peer.shutdown(socket.SHUT_WR)
        await wait_until(lambda: side.is_closed)
        assert side.got == ["the client ended its connection"]


@trio_test(timeout_s=8)
async def test_a_client_that_does_not_end_is_closed_after_a_moment() -> None:
    async with connected() as (side, peer):
        side.close_gently()
        assert await peer.recv(20) == b""
        await wait_until(lambda: side.is_closed)
        assert side.got == ["in time"]
