"""The stack of a worker in the test's own process, between backends and clients that the test plays. Real sockets.

    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        await client.send(GET)
        assert (await client.answer()).status == 200

When a test is done with it, nothing may be left: no client, task, lease, deadline, registered or open descriptor.
"""

import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest
import trio

from lbproxy.address import Address
from lbproxy.link.grid import GAUGES, Counter, Grid
from lbproxy.link.messages import ToControl
from lbproxy.model import BackendId, BackendView, ListenerView, PoolView, RoutingTable
from lbproxy.settings import (
    ListenerSettings,
    TargetTls,
    TlsSettings,
)
from lbproxy.telemetry.access import AccessLog, AccessRecord
from lbproxy.telemetry.events import Event, Notice
from lbproxy.worker.backends.connections import SWEEP_S, BackendConnections
from lbproxy.worker.context import Context
from lbproxy.worker.front.accept import Acceptor
from lbproxy.worker.io import reactor
from lbproxy.worker.lanes import Lanes
from lbproxy.worker.leases.router import Router
from support.http2_bridge import Http2PeerSocket
from support.peer import Ended, Message, Peer, connect
from support.setup import Setup
from support.tls_peer import shared_contexts

Script = Callable[[Peer], Awaitable[None]]

LANES = ("express", "task", "tls")
# h2: the clients speak HTTP/2 (see http2_bridge.py), and simple streams are served without a task; h2task: none is.
EVERY_LANE = (*LANES, "h2", "h2task")
lanes = pytest.mark.parametrize("lane", LANES)
every_lane = pytest.mark.parametrize("lane", EVERY_LANE)
WAIT_S = 5.0  # the limit of every wait
POOL_CELL, LISTENER_CELL, FIRST_CELL, CELLS = 0, 1, 2, 16

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def get(path: bytes, *fields: bytes, method: bytes = b"GET", minor: int = 1) -> bytes:
    return b"\r\n".join([b"%b %b HTTP/1.%d" % (method, path, minor), b"Host: a.example", *fields, b"\r\n"])


def post(body: bytes, *fields: bytes, path: bytes = b"/") -> bytes:
    return get(path, b"Content-Length: %d" % len(body), *fields, method=b"POST") + body


def post_chunked(*chunks: bytes, trailers: bytes = b"", fields: tuple[bytes, ...] = ()) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return get(b"/", b"Transfer-Encoding: chunked", *fields, method=b"POST") + framed + b"0\r\n" + trailers + b"\r\n"


# What a script does with each connection of a backend


def answering(*answers: bytes) -> Script:
    """A script that answers each request, body included, with the next of these; the last one is repeated."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        while True:
            await peer.request()
            await peer.send(answers[-1])

    return script


async def never_answering(peer: Peer) -> None:
    await peer.wait_ended()


class Backend:
    """A backend on a port of its own. A connection ends when its script ends, or reads the end."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.tls: TargetTls | None = None
        self._sock = trio.socket.from_stdlib_socket(socket.create_server(("127.0.0.1", 0), backlog=512))
        self.address = Address("127.0.0.1", self._sock.getsockname()[1])

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            with suppress(trio.ClosedResourceError, OSError):
                while True:
                    sock, _ = await self._sock.accept()
                    self.peers.append(Peer(sock))
                    nursery.start_soon(self._serve, self.peers[-1])

    async def _serve(self, peer: Peer) -> None:
        with suppress(Ended):
            await self.script(peer)
        peer.close()

    def refuse(self) -> None:
        """Stop listening: connections are refused from now on."""
        self._sock.close()

    @property
    def received(self) -> bytes:
        """All bytes received, by connection in the order of opening."""
        return b"".join(bytes(peer.received) for peer in self.peers)

    def close(self) -> None:
        self._sock.close()
        for peer in self.peers:
            peer.close()


class Records(AccessLog):
    """An access log that keeps the records themselves."""

    def __init__(self) -> None:
        super().__init__(None, "off")
        self.is_on = True
        self.records: list[AccessRecord] = []

    def add(self, record: AccessRecord) -> None:
        self.records.append(record)


class Proxy:
    """`before`: the stack of another worker between the same backends and clients. `row`: in the grid."""

    def __init__(
        self, lane: str, scripts: tuple[Script, ...], setup: Setup, *, before: "Proxy | None" = None, row: int = 0
    ) -> None:
        self.setup = setup
        self.challenges: tuple[tuple[str, str], ...] = ()  # of the next table
        self.lane = lane
        self.row = row
        self.events: list[Event] = []
        self.posted: list[ToControl] = []
        self.drained: list[BackendId] = []
        self.access = before.access if before is not None else Records()
        self.backends = before.backends if before is not None else [Backend(script) for script in scripts]
        self.expected_notices = 0  # our own mistakes that a test provokes
        self.grid = before.grid if before is not None else Grid.create(setup.rows, CELLS)
        self.reactor = reactor.Reactor(self.events.append)
        self.router = Router(self.grid, row, self._drained, self.events.append)
        idle = BackendConnections(self.reactor)
        self.context = Context(self.reactor, self.router, idle, self.posted.append, self.events.append, self.access)
        if not setup.dates:
            self.context.date = lambda: b""  # what the clock says is another thing in each run
        self.acceptor = Acceptor(self.reactor, self.grid, row, self.events.append)
        self.lanes = Lanes(self.context, self.acceptor)
        self.lanes.off = lane.endswith("task")
        self.is_tls = lane == "tls"
        self.is_http2 = lane.startswith("h2")
        self.acceptor.open = self.lanes.open
        self.acceptor.open_admitted = self.lanes.open_admitted
        self.acceptor.note = self.router.tally.note
        if self.is_tls:
            self.acceptor.use_certificates(1, shared_contexts())
        self._listening = before._listening.dup() if before is not None else self._listen()
        self.address = Address("127.0.0.1", self._listening.getsockname()[1])
        self._clients: list[Peer] = before._clients if before is not None else []
        if before is None:
            self.publish(*range(len(scripts)))
        else:
            self.router.apply(before.router.table)
            self.acceptor.apply(before.router.table, {1: self._listening})

    def _listen(self) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        if self.setup.send_bytes:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.setup.send_bytes)
        listening.setblocking(False)
        return listening

    def _drained(self, backend: BackendView) -> None:
        self.context.forget_backend(backend)
        self.drained.append(backend.id)

    # The table

    def view(self, index: int) -> BackendView:
        backend = self.backends[index]
        token = f"token-{index + 1}" if self.setup.sticky is not None else ""
        view = BackendView(BackendId("web", index + 1, 1), backend.address, FIRST_CELL + index, tls=backend.tls)
        return replace(view, send_proxy=self.setup.send_proxy, token=token, is_http2=self.setup.is_http2)

    def publish(self, *indices: int, **changes: object) -> None:
        """Publish a table with these backends. `changes` are those of the pool."""
        setup = self.setup
        views = tuple(map(self.view, indices))
        pool = PoolView(
            *("web", POOL_CELL, views, 1, setup.balance, None),
            *(setup.pool_timeouts, setup.pool_limits, setup.drain, 2),
            sticky=setup.sticky,
        )
        settings = ListenerSettings(
            *("public", self.address, setup.mode, setup.pool, setup.trusted, setup.limits, setup.timeouts),
            half_close=setup.half_close,
            proxy_protocol=setup.proxy_protocol,
            **{  # type: ignore[arg-type]
                "tls": TlsSettings() if self.is_tls else None,
                "protocols": ("h2c",) if self.is_http2 else ("http/1.1",),
                **setup.more,
            },
        )
        listener = ListenerView(1, LISTENER_CELL, settings)
        epoch = self.router.table.epoch + 1
        pools = (replace(pool, **changes),)  # type: ignore[arg-type]
        table = RoutingTable(epoch, "edge", (listener,), setup.routes, pools, challenges=self.challenges)
        self.router.apply(table)
        self.context.backends.share(views)
        if self._listening.fileno() < 0:
            self.acceptor.apply(table, {})  # an old worker: it does not listen any more
            return
        self.acceptor.apply(table, {1: self._listening if epoch == 1 else self._listening.dup()})

    # Clients, and what a test asks

    async def client(self, *, receive_bytes: int = 0, before: bytes = b"") -> Peer:
        """`before`: sent first, in plain."""
        peer = await connect(self.address, receive_bytes=receive_bytes, tls=self.is_tls, before=before)
        self._clients.append(peer)
        if self.is_http2:
            peer.sock = bridge = Http2PeerSocket(peer.sock)
            await bridge.begin()
        return peer

    async def ask(self, data: bytes, method: bytes = b"GET") -> Message:
        """The answer to a request on a connection of its own, which stays open."""
        client = await self.client()
        await client.send(data)
        return await client.answer(method)

    @property
    def records(self) -> list[AccessRecord]:
        return self.access.records

    def count(self, counter: Counter, index: int = 0) -> int:
        """The value of a counter of a backend."""
        return self.grid.sum(FIRST_CELL + index, counter)

    @property
    def leases(self) -> int:
        return sum(self.count(Counter.LEASES, index) for index in range(len(self.backends)))

    async def wait_records(self, count: int) -> list[AccessRecord]:
        await wait_until(lambda: len(self.records) >= count)
        return self.records

    # The end

    async def settle(self) -> None:
        """End all clients, and check that nothing of them is left."""
        await wait_until(lambda: self.grid.sum(LISTENER_CELL, Counter.ACCEPTED) == len(self._clients))
        for client in self._clients:
            client.close()
        await self.empty()

    async def empty(self) -> None:
        """Check that nothing is left here, once the clients have gone or are with another worker."""
        await wait_until(lambda: not (self.acceptor.admitting or self.lanes.connections), self._left)
        await wait_until(lambda: not self.leases, self._left)
        assert not self.lanes._in_tasks, self._left()
        assert self.lanes._nursery is not None
        await wait_until(lambda: not self.lanes._nursery.child_tasks, self._left)  # type: ignore[union-attr]
        in_hand = {
            (cell, counter.name): value
            for cell in range(CELLS)
            for counter in map(Counter, GAUGES)
            if (value := self.grid.values[self.grid.base(self.row, cell) + counter])
        }
        assert not in_hand, (in_hand, self._left())
        assert not any(self.router.queues.values()), self._left()
        self.context.close_backends()
        self.acceptor.close()
        assert not any(self.reactor.handlers), self._left()
        await wait_until(lambda: not self._armed(), lambda: str(self._armed()))
        assert len(self.notices) == self.expected_notices, "\n".join(self.notices)

    def _armed(self) -> list[object]:
        """Records of streams that wait to be used again keep their place in the heap."""
        free = self.lanes.stream_heads.free
        return [item for at, _, item in self.reactor._heap if item.queued_at == at and item not in free]

    @property
    def notices(self) -> list[str]:
        """The reports of mistakes of our own."""
        return [event.text for event in self.events if isinstance(event, Notice)]

    def _left(self) -> str:
        return (
            f"left: {self.lanes.connections} clients, {len(self.lanes._in_tasks)} in tasks, {self.leases} leases, "
            f"handlers {list(filter(None, self.reactor.handlers))}, events {self.events}"
        )

    async def sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_S)
            self.context.backends.sweep({"web": self.setup.pool_timeouts.keepalive_s})

    def close(self) -> None:
        self.leave()
        for peer in (*self._clients, *self.backends):
            peer.close()
        self.grid.close()

    def leave(self) -> None:
        """Close what is this worker's own."""
        self.context.close_backends()
        self.acceptor.close()
        for record in list(self.lanes._records):
            record.sock.close()
        self.reactor.close()
        self.lanes.pipes.close()

    async def run(self, nursery: trio.Nursery) -> None:
        """Start its tasks."""
        for part in (self.reactor.run, self.router.run_drains, self.sweep, self.lanes.run):
            nursery.start_soon(part)
        await wait_until(lambda: self.lanes._nursery is not None)


@asynccontextmanager
async def proxy(lane: str, *scripts: Script, setup: Setup | None = None) -> AsyncIterator[Proxy]:
    """The stack, with one backend per script."""
    with no_descriptor_left(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(reactor, "LINGER_S", 0.0)  # the peers that the test plays would be kept waiting, too
        lb = Proxy(lane, scripts, setup or Setup())
        try:
            async with trio.open_nursery() as nursery:
                for backend in lb.backends:
                    nursery.start_soon(backend.run)
                await lb.run(nursery)
                yield lb
                await lb.settle()
                nursery.cancel_scope.cancel()
        except ExceptionGroup as group:
            if lb.notices:
                group.add_note("\n".join(lb.notices))
            raise
        finally:
            lb.close()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    gc.collect(0)
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in _open() - before}
    assert not left, left


def _open() -> set[str]:
    fds = set(os.listdir("/proc/self/fd"))
    return {fd for fd in fds if os.path.lexists(f"/proc/self/fd/{fd}")}  # without that of the listing itself


async def wait_until(condition: Callable[[], object], explain: Callable[[], str] | None = None) -> None:
    """Wait for a condition that no event reports: it is checked each time all other tasks have had a turn."""
    with trio.move_on_after(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)
        return
    pytest.fail(explain() if explain is not None else f"waited for {WAIT_S}s in vain")


async def together(*jobs: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(partial(_discard, job))


async def _discard(job: Callable[[], Awaitable[object]]) -> None:
    await job()
