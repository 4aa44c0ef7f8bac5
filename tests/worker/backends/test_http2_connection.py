"""One shared connection to a backend on a real reactor: what is sent together, idle ends, PING, congestion."""

import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, PingReceived
from hyperframe.frame import GoAwayFrame
from support.http2_backend import Http2Peer
from support.peer import Ended, Peer
from support.proxy import wait_until
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.model import BackendId, BackendView
from lbproxy.wire.http2.encoder import field
from lbproxy.wire.http2.errors import NoStreams
from lbproxy.wire.http2.hpack import Fields
from lbproxy.worker.backends import liveness
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.backends.http2_connection import SharedConnection
from lbproxy.worker.backends.http2_settings import UNTOLD_STREAMS
from lbproxy.worker.backends.stream_owner import Loss
from lbproxy.worker.io.reactor import Reactor

VIEW = BackendView(BackendId("web", 1, 1), Address("127.0.0.1", 1), 0, is_http2=True)
HEAD = b"".join(
    field(name, value)
    for name, value in ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"))
)


class Noted:
    """A stream's owner that keeps what it is told."""

    def __init__(self) -> None:
        self.heads: list[Fields] = []
        self.data = b""
        self.ended = False
        self.loss: Loss | None = None
        self.writable = 0

    def on_head(self, fields: Fields, end: bool) -> None:
        self.heads.append(fields)
        self.ended = end

    def on_data(self, data: bytes, size: int, end: bool) -> None:
        self.data += data
        self.ended = end

    def on_trailers(self, fields: Fields) -> None:
        self.ended = True

    def on_writable(self) -> None:
        self.writable += 1

    def on_lost(self, loss: Loss) -> None:
        self.loss = loss


class SendsNothing:
    """A transport whose socket breaks when it sends, and has nothing to read."""

    def __init__(self, transport: BackendConnection) -> None:
        self.fd, self.close = transport.fd, transport.close
        self.sock = self

    def send(self, data: bytes) -> int:
        raise OSError(0, "no")

    def recv(self, size: int) -> bytes:
        raise BlockingIOError


class Bench:
    def __init__(self, reactor: Reactor, shared: SharedConnection, far: Http2Peer, closed: list[SharedConnection]):
        self.reactor, self.shared, self.far, self.closed = reactor, shared, far, closed


@asynccontextmanager
async def bench(*, keepalive_s: float = 30.0, speaks: bool = True) -> AsyncIterator[Bench]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        near.setblocking(False)
        accepted, _ = server.accept()
    reactor = Reactor(lambda event: pytest.fail(repr(event)))
    closed: list[SharedConnection] = []
    far = Http2Peer(Peer(trio.socket.from_stdlib_socket(accepted)))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            shared = SharedConnection(BackendConnection(VIEW, near), reactor, keepalive_s, closed.append)
            if speaks:
                await far.begin()
            yield Bench(reactor, shared, far, closed)
            if not shared.is_closed:
                shared.abort()
            assert closed == [shared]
            assert not any(reactor.handlers)
            nursery.cancel_scope.cancel()
    finally:
        near.close()
        far.peer.close()
        reactor.close()


@trio_test(timeout_s=8)
async def test_what_is_put_together_leaves_in_one_send_and_both_ends_end_a_stream() -> None:
    async with bench() as b:
        owners = [Noted() for _ in range(3)]
        ids = [b.shared.begin_stream(owner, HEAD, end=True) for owner in owners]
        assert ids == [1, 3, 5]
        await b.far.more()
        assert len(b.far.asked) == 3
        for stream in ids:
            await b.far.answer(stream, b"hello")
        await wait_until(lambda: all(owner.ended for owner in owners))
        assert [owner.data for owner in owners] == [b"hello"] * 3
        assert b.shared.streams == 3
        for stream in ids:
            b.shared.leave(stream)
        assert b.shared.streams == 0
        assert b.shared.has_served
        with trio.move_on_after(0.02):
            await b.far.until(lambda: any(asked.reset is not None for asked in b.far.asked.values()))
        assert not b.shared.is_closed


@trio_test(timeout_s=8)
async def test_until_the_backend_says_how_many_a_few_streams_may_be_open() -> None:
    async with bench(speaks=False) as b:
        for _ in range(UNTOLD_STREAMS):
            assert b.shared.has_room
            b.shared.begin_stream(Noted(), HEAD, end=True)
        assert not b.shared.has_room
        await b.far.begin()
        await wait_until(lambda: b.shared.has_room)


@trio_test(timeout_s=8)
async def test_an_idle_connection_says_goodbye_and_closes() -> None:
    async with bench(keepalive_s=0.1) as b:
        with suppress(Ended):
            await b.far.until(lambda: False)
        assert b.far.saw(ConnectionTerminated)
        assert b.shared.is_closed


@trio_test(timeout_s=8)
async def test_a_retired_connection_closes_behind_its_last_stream() -> None:
    async with bench() as b:
        owner = Noted()
        stream = b.shared.begin_stream(owner, HEAD, end=True)
        b.shared.retire()
        assert not b.shared.has_room
        assert not b.shared.is_closed
        await b.far.request()
        await b.far.answer(stream)
        await wait_until(lambda: owner.ended)
        b.shared.leave(stream)
        assert b.shared.is_closed


@trio_test(timeout_s=8)
async def test_goaway_loses_the_newer_streams_unread_and_keeps_the_older_ones() -> None:
    async with bench() as b:
        older, newer = Noted(), Noted()
        b.shared.begin_stream(older, HEAD, end=True)
        b.shared.begin_stream(newer, HEAD, end=True)
        await b.far.frame(GoAwayFrame(last_stream_id=1, error_code=11, additional_data=b"too_many_pings"))
        await wait_until(lambda: newer.loss is not None)
        why = "the backend goes away: ENHANCE_YOUR_CALM (too_many_pings)"
        assert newer.loss == Loss(why, is_unread=True, is_accident=True)
        assert older.loss is None
        assert not b.shared.has_room
        await b.far.request()
        await b.far.answer(1)
        await wait_until(lambda: older.ended)
        b.shared.leave(1)
        assert b.shared.is_closed


@trio_test(timeout_s=8)
async def test_a_request_that_never_left_is_unread_when_the_connection_ends() -> None:
    async with bench() as b:
        sent, unsent = Noted(), Noted()
        b.shared.begin_stream(sent, HEAD, end=True)
        await b.far.begun()
        b.shared.begin_stream(unsent, HEAD, end=True)
        b.shared.abort()  # before the reactor has had its turn
        why = "the connection was closed on our side"
        assert sent.loss == Loss(why, is_accident=True)
        assert unsent.loss == Loss(why, is_unread=True, is_accident=True)


@trio_test(timeout_s=8)
async def test_an_end_that_the_reactor_has_not_seen_yet_is_found_by_a_look() -> None:
    async with bench() as b:
        await wait_until(lambda: b.shared.has_settings)
        b.far.peer.end()
        assert select.select([b.shared.transport.sock], [], [], 5)[0]
        assert b.shared.has_room
        b.shared.look()
        assert b.shared.is_closed


@trio_test(timeout_s=8)
async def test_a_connection_that_takes_nothing_is_read_once_more_and_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as b:
        await wait_until(lambda: b.shared.has_settings)
        owner = Noted()
        monkeypatch.setattr(b.shared, "transport", SendsNothing(b.shared.transport))
        b.shared.begin_stream(owner, HEAD, end=True)
        await wait_until(lambda: owner.loss is not None)
        assert owner.loss == Loss("the backend broke off: no", is_unread=True, is_accident=True)


@trio_test(timeout_s=8)
async def test_a_stream_that_its_owner_leaves_is_cancelled() -> None:
    async with bench() as b:
        stream = b.shared.begin_stream(Noted(), HEAD, end=False)
        b.shared.put(stream, b"part")
        await b.far.begun()
        b.shared.leave(stream)
        await b.far.until(lambda: b.far.asked[stream].reset is not None)
        assert b.far.asked[stream].reset == ErrorCodes.CANCEL


@pytest.mark.parametrize("answers", [True, False])
@trio_test(timeout_s=8)
async def test_a_silent_backend_is_pinged_and_is_dead_when_it_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(liveness, "QUIET_S", 0.1)
    monkeypatch.setattr(liveness, "PONG_S", 0.3)
    async with bench() as b:
        owner = Noted()
        stream = b.shared.begin_stream(owner, HEAD, end=True)
        if answers:
            await b.far.until(lambda: b.far.saw(PingReceived))
            await trio.sleep(0.5)
            assert owner.loss is None
            await b.far.answer(stream)
            await wait_until(lambda: owner.ended)
        else:
            await wait_until(lambda: owner.loss is not None)
            assert owner.loss is not None
            assert owner.loss.status == 504
            assert b.shared.is_closed


@trio_test(timeout_s=8)
async def test_a_socket_that_takes_nothing_is_congested_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as b:
        b.far.h2.increment_flow_control_window(1 << 29)
        await b.far.flush()
        owner = Noted()
        stream = b.shared.begin_stream(owner, HEAD, end=False)
        await b.far.begun()
        b.far.h2.increment_flow_control_window(1 << 29, stream)
        await b.far.flush()
        put = 0
        while not b.shared.is_congested:
            b.shared.put(stream, bytes(65536))
            put += 65536
            await trio.sleep(0.001)
        before = owner.writable
        await b.far.until(lambda: len(b.far.asked[stream].body) == put)
        await wait_until(lambda: owner.writable > before)
        assert not b.shared.is_congested
        b.shared.put(stream, b"", end=True)
        await b.far.until(lambda: b.far.asked[stream].ended)


def used_up() -> int:
    raise NoStreams("no id is left")


@trio_test(timeout_s=8)
async def test_ids_that_are_used_up_end_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as b:
        b.shared.begin_stream(Noted(), HEAD, end=True)
        monkeypatch.setattr(b.shared._wire, "open_stream", used_up)
        with pytest.raises(NoStreams):
            b.shared.begin_stream(Noted(), HEAD, end=True)
        assert not b.shared.has_room


@pytest.mark.parametrize("bytes_", [b"HTTP/1.1 400 Bad\r\n\r\n", b"\x00\x00\x04\x00\x00\x00\x00\x00\x01abcd"])
@trio_test(timeout_s=8)
async def test_bytes_that_are_no_http2_lose_every_stream(bytes_: bytes) -> None:
    async with bench(speaks=False) as b:
        owner = Noted()
        b.shared.begin_stream(owner, HEAD, end=True)
        await b.far.peer.send(bytes_)
        await wait_until(lambda: owner.loss is not None)
        assert owner.loss is not None
        assert "does not keep to HTTP/2" in owner.loss.reason
        assert owner.loss.token == "http_protocol_error"
