"""A stream that a relay has: bytes, ends and resets reach the relay; it lasts until both sides have ended."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from support.stream_listener import Listener
from support.trio_test import trio_test

from lbproxy.telemetry.events import Event
from lbproxy.wire.http2.errors import CANCEL, NO_ERROR
from lbproxy.worker.http2 import relayed_stream
from lbproxy.worker.http2.relayed_stream import RelayedStream
from lbproxy.worker.io.reactor import Reactor


class FakeCarrier:
    sock = socket.socket.__new__(socket.socket)

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.waiting = 0  # bytes that the client's window holds back
        self.sent: list[tuple[bytes, bool]] = []
        self.resets: list[int] = []
        self.credited = 0
        self.parted_with: list[RelayedStream] = []
        self.has_parted = trio.Event()

    def pending(self, stream_id: int) -> int:
        return self.waiting

    def send_data(self, stream_id: int, payload: bytes, *, end: bool) -> None:
        self.sent.append((payload, end))

    def reset(self, stream_id: int, code: int) -> None:
        self.resets.append(code)

    def credit(self, stream_id: int, size: int) -> None:
        self.credited += size

    def parted(self, stream: RelayedStream) -> None:
        self.parted_with.append(stream)
        self.has_parted.set()


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[FakeCarrier, RelayedStream, Listener]]:
    events: list[Event] = []
    reactor = Reactor(events.append)
    carrier, listener = FakeCarrier(reactor), Listener()
    stream = RelayedStream(carrier, 5, None, 0.0, has_ended=False)
    stream.attach(listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await trio.lowlevel.checkpoint()
        yield carrier, stream, listener
        nursery.cancel_scope.cancel()
    reactor.close()
    assert not events


@trio_test
async def test_what_comes_reaches_the_relay_in_its_order() -> None:
    async with relayed() as (carrier, stream, listener):
        stream.received(b"one", end=False)
        stream.received(b"two", end=True)
        assert listener.heard == [b"one", b"two", "end"]
        stream.send(b"three")
        stream.hang_up()
        assert carrier.sent == [(b"three", False), (b"", True)]
        stream.close(reset=False)
        assert carrier.parted_with == [stream]
        assert not carrier.resets


@trio_test
async def test_room_is_told_behind_the_batch_and_only_where_something_waited() -> None:
    async with relayed() as (carrier, stream, listener):
        stream.send(b"short")
        stream.rouse()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not listener.heard
        carrier.waiting = 10
        stream.send(b"long")
        carrier.waiting = 0
        stream.rouse()
        stream.rouse()
        assert not listener.heard
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert listener.heard == ["room"]


@trio_test
async def test_a_client_that_does_not_end_its_side_is_reset_in_time(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(relayed_stream, "PARTING_S", 0.02)
    async with relayed() as (carrier, stream, listener):
        stream.close(reset=False)
        assert carrier.sent == [(b"", True)]
        stream.received(b"late", end=False)
        assert carrier.credited == 4, "the window of the connection opens again"
        assert not carrier.parted_with
        await carrier.has_parted.wait()
        assert carrier.resets == [NO_ERROR]
        assert not listener.heard


@trio_test
async def test_resets_cross_as_resets() -> None:
    async with relayed() as (carrier, stream, listener):
        stream.leave("the client has reset the stream")
        assert listener.heard == ["gone"]
        stream.send(b"too late")
        stream.close(reset=False)
        assert (carrier.sent, carrier.resets, carrier.parted_with) == ([], [], [stream])
    async with relayed() as (carrier, stream, listener):
        stream.close(reset=True)
        assert (carrier.sent, carrier.resets, carrier.parted_with) == ([], [CANCEL], [stream])
        stream.leave("the connection ends")
        assert carrier.parted_with == [stream]
