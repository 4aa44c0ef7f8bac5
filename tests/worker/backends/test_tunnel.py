"""A stream to a backend that a relay has: bytes, ends and losses reach the relay, and the stream ends politely."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from support.stream_listener import Listener
from support.trio_test import trio_test

from lbproxy.telemetry.events import Event
from lbproxy.worker.backends import tunnel as module
from lbproxy.worker.backends.stream_owner import Loss
from lbproxy.worker.backends.tunnel import Tunnel
from lbproxy.worker.io.reactor import Reactor


class FakeConnection:
    """What a tunnel asks of its connection."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.is_congested = False
        self.queued = 0
        self.done: list[tuple[object, ...]] = []
        self.left = trio.Event()

    def put(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        self.done.append((data, end))

    def pending(self, stream_id: int) -> int:
        return self.queued

    def credit(self, stream_id: int, size: int) -> None:
        self.done.append(("credit", size))

    def leave(self, stream_id: int) -> None:
        self.done.append(("leave",))
        self.left.set()


@asynccontextmanager
async def tunnelled() -> AsyncIterator[tuple[FakeConnection, Tunnel, Listener]]:
    events: list[Event] = []
    reactor = Reactor(events.append)
    connection: Any = FakeConnection(reactor)
    tunnel, listener = Tunnel(connection, 5, has_ended=False), Listener()
    tunnel.attach(listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await trio.lowlevel.checkpoint()
        yield connection, tunnel, listener
        nursery.cancel_scope.cancel()
    reactor.close()
    assert not events


@trio_test
async def test_what_comes_reaches_the_relay_and_padding_is_credited_at_once() -> None:
    async with tunnelled() as (connection, tunnel, listener):
        tunnel.on_data(b"one", 10, False)
        tunnel.on_data(b"two", 3, True)
        assert listener.heard == [b"one", b"two", "end"]
        assert connection.done == [("credit", 7)]
        tunnel.send(b"three")
        tunnel.close(reset=False)
        assert connection.done[1:] == [(b"three", False), (b"", True), ("leave",)]


@trio_test
async def test_room_is_told_behind_the_batch() -> None:
    async with tunnelled() as (connection, tunnel, listener):
        connection.is_congested = True
        assert tunnel.pending == 1
        tunnel.on_writable()
        tunnel.on_writable()
        assert not listener.heard
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert listener.heard == ["room"]


@trio_test
async def test_a_backend_that_does_not_end_its_side_is_cancelled_in_time(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module, "PARTING_S", 0.02)
    async with tunnelled() as (connection, tunnel, listener):
        tunnel.close(reset=False)
        tunnel.on_data(b"late", 4, False)
        assert connection.done == [("credit", 4)]
        await connection.left.wait()
        assert connection.done == [("credit", 4), ("leave",)]
        assert not listener.heard


@trio_test
async def test_losses_and_resets_cross() -> None:
    async with tunnelled() as (connection, tunnel, listener):
        tunnel.on_lost(Loss("gone"))
        tunnel.send(b"too late")
        assert (listener.heard, connection.done) == (["gone"], [])
    async with tunnelled() as (connection, tunnel, listener):
        tunnel.close(reset=True)
        assert connection.done == [("leave",)]
