"""A stream of an HTTP/2 connection as the client of a relay: bytes, ends and errors cross in bounded memory."""

import socket
from contextlib import suppress

import trio
import trio.testing
from support.relaying import Peer, Rig, pair, rig
from support.trio_test import trio_test
from support.websocket_talk import DRAIN, MASKED_CLOSE, OURS, TEXT, masked

from lbproxy.worker.io.stream_end import StreamListener
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.relay.relay import Relay, Why
from lbproxy.worker.relay.websocket import WebSocketRelay

LARGE = bytes(1 << 24)  # more than the kernel buffers for a reader that does not read
WINDOW_BYTES = 64 * 1024
settled = trio.testing.wait_all_tasks_blocked


class FakeStream:
    """A stream whose client opens its window when the test says so."""

    def __init__(self, sock: socket.socket, window_bytes: int = WINDOW_BYTES) -> None:
        self.sock = sock
        self.listener: StreamListener
        self.sent = b""
        self.credited = 0
        self.has_ended = False
        self.hung_up = False
        self.closed: bool | None = None  # `reset`
        self._queue = b""
        self._window_bytes = window_bytes

    @property
    def pending(self) -> int:
        return len(self._queue)

    def attach(self, listener: StreamListener) -> None:
        self.listener = listener

    def send(self, data: bytes) -> None:
        self._queue += data
        self._move()

    def _move(self) -> None:
        size = min(self._window_bytes, len(self._queue))
        self.sent, self._queue = self.sent + self._queue[:size], self._queue[size:]
        self._window_bytes -= size

    def hang_up(self) -> None:
        self.hung_up = True

    def credit(self, size: int) -> None:
        self.credited += size

    def close(self, *, reset: bool) -> None:
        self.closed = reset

    # The test's side

    def open_window(self, size: int = WINDOW_BYTES) -> None:
        self._window_bytes += size
        self._move()
        self.listener.on_stream_room()

    def say(self, data: bytes) -> None:
        self.listener.on_stream_data(data)


class Link:
    def __init__(self, made: Rig, kind: type[Relay], *, stall_s: float = 5.0) -> None:
        near, far = pair(tcp=True)
        self.backend = Peer(far)
        self.stream = FakeStream(near)
        self.ended = trio.Event()
        self.relay = kind(made.reactor, self.stream, near, stall_s=stall_s, on_end=lambda _: self.ended.set())
        made.add(self.relay)
        made._peers.append(self.backend)


@trio_test
async def test_bytes_pass_both_ways_and_half_closes_are_passed_on() -> None:
    async with rig() as made:
        link = Link(made, Relay)
        link.relay.start(from_client=b"early ", from_backend=b"eager ")
        link.stream.say(b"ask")
        assert await link.backend.receive(9) == b"early ask"
        await link.backend.send(b"answer")
        await settled(0.02)
        assert link.stream.sent == b"eager answer"
        assert link.stream.credited == 3
        link.backend.end()
        await settled(0.02)
        assert link.stream.hung_up
        assert not link.ended.is_set()
        link.stream.say(b" more")
        link.stream.listener.on_stream_end()
        assert await link.backend.rest() == b" more"
        await link.ended.wait()
        assert (link.relay.why, link.relay.client.received, link.stream.closed) == (Why.DONE, 14, False)


@trio_test
async def test_a_closed_window_stops_the_backend_and_only_so_much_waits() -> None:
    async with rig() as made:
        link = Link(made, Relay)
        link.relay.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.backend.send, LARGE)
            await settled(0.05)
            assert len(link.stream.sent) == WINDOW_BYTES
            assert 0 < link.stream.pending <= 2 * WINDOW_BYTES
            while len(link.stream.sent) < len(LARGE):
                link.stream.open_window(1 << 20)
                await trio.lowlevel.checkpoint()


@trio_test
async def test_a_backend_that_does_not_read_keeps_the_window_closed() -> None:
    async with rig() as made:
        link = Link(made, Relay)
        link.relay.start()
        said = 0
        while said - link.stream.credited < WINDOW_BYTES:  # as a client may
            link.stream.say(bytes(16384))
            said += 16384
            await trio.lowlevel.checkpoint()
        await settled(0.02)
        assert said - link.stream.credited == WINDOW_BYTES
        assert len(await link.backend.receive(said)) == said
        await settled(0.02)
        assert link.stream.credited == said


@trio_test
async def test_errors_are_passed_on_as_errors() -> None:
    async with rig() as made:
        link = Link(made, Relay)
        link.relay.start()
        link.stream.listener.on_stream_gone()
        await link.ended.wait()
        assert link.relay.why is Why.CLIENT_GONE
        with suppress(ConnectionResetError):
            assert not await link.backend.rest(), "an end is no reset"
        link = Link(made, Relay)
        link.relay.start()
        link.backend.reset()
        await link.ended.wait()
        assert (link.relay.why, link.stream.closed) == (Why.BACKEND_GONE, True)


@trio_test
async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    async with rig() as made:
        link = Link(made, Relay, stall_s=0.05)
        link.relay.start()
        with suppress(OSError):
            await link.backend.send(LARGE)
        await link.ended.wait()
        assert link.relay.why is Why.STALLED


@trio_test
async def test_a_goodbye_is_one_close_in_the_stream_and_its_end() -> None:
    async with rig() as made:
        link = Link(made, WebSocketRelay)
        assert isinstance(link.relay, WebSocketRelay)
        lease = Lease()
        lease.drain = DRAIN
        link.relay.hold(lease)
        link.relay.start()
        link.stream.say(masked(TEXT))
        await link.backend.receive(len(masked(TEXT)))
        link.relay.say_goodbye(trio.current_time())
        assert not link.relay.is_movable
        await link.backend.receive(len(MASKED_CLOSE))
        await link.backend.send(TEXT + OURS)
        link.backend.end()
        await settled(0.02)
        assert link.stream.sent == TEXT + OURS
        link.stream.say(MASKED_CLOSE)
        await link.ended.wait()
        assert (link.relay.why, link.relay.closed_by, link.stream.closed) == (Why.DONE, "proxy", False)


@trio_test
async def test_behind_both_closes_a_stream_does_not_wait_for_its_clients_end() -> None:
    async with rig() as made:
        link = Link(made, WebSocketRelay)
        link.relay.start()
        link.stream.say(MASKED_CLOSE)
        await link.backend.receive(len(MASKED_CLOSE))
        await link.backend.send(OURS)
        link.backend.end()
        await link.ended.wait()
        assert isinstance(link.relay, WebSocketRelay)
        assert (link.relay.why, link.relay.closed_by, link.stream.sent) == (Why.DONE, "client", OURS)
