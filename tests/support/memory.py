"""The task lane on memory streams and virtual time: a client and a backend that the test plays, word by word.

bench = Bench()
client, backend = bench.client, bench.idle()
client.says(GET)
...
"""

from collections import deque
from dataclasses import replace

import trio

from lbproxy.address import Address
from lbproxy.link.grid import Counter, Grid
from lbproxy.model import BackendId, BackendView, LeaseKind, ListenerView, PoolView, RoutingTable
from lbproxy.settings import (
    DrainSettings,
    ListenerLimits,
    ListenerSettings,
    ListenerTimeouts,
    PoolLimits,
    PoolTimeouts,
)
from lbproxy.telemetry.events import Event
from lbproxy.wire.head import head_end, read_request
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.backends.connections import BackendConnection, BackendConnections
from lbproxy.worker.context import Context
from lbproxy.worker.handover import Begun, Handover
from lbproxy.worker.io.reactor import Reactor
from lbproxy.worker.io.stream import READ_BYTES, StreamBroken, StreamStalled
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.leases.router import Router
from lbproxy.worker.task.client import Client
from lbproxy.worker.task.exchange import Exchange
from support.proxy import Records

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
FACTS = ClientFacts(b"192.0.2.7", False, b"http")
POOL_CELL, LISTENER_CELL, BACKEND_CELL = 0, 1, 2


class MemoryStream:
    """A ByteStream whose far end is the test: `says`, `ends`, `breaks`, and `heard`, what was said to it."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.room: int | None = None  # how much more it takes; None: everything
        self.is_half_closed = self.is_closed = self.is_reset = False
        self._said: deque[bytes] = deque()
        self._ended = self._broken = False
        self._outbox = bytearray()
        self._changed = trio.Event()

    # The far end

    def says(self, *pieces: bytes) -> None:
        """Queue messages from the far end; each is read on its own."""
        self._said.extend(pieces)
        self._change()

    def ends(self) -> None:
        self._ended = True
        self._change()

    def breaks(self) -> None:
        """Break the stream once everything it said is read; from now on it takes nothing."""
        self._broken = True
        self._change()

    def takes(self, count: int | None) -> None:
        """Let the far end take this much more; None: everything from now on."""
        self.room = count
        self._send()
        self._change()

    async def wait_heard(self, mark: bytes) -> None:
        while mark not in self.heard:
            await self._changed.wait()

    async def wait_closed(self) -> None:
        while not self.is_closed:
            await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # The near end

    @property
    def pending(self) -> int:
        return len(self._outbox)

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._said:
            if self._broken or self.is_closed:
                raise StreamBroken("reset")
            if self._ended:
                return b""
            await self._changed.wait()
        data = self._said.popleft()
        if len(data) > READ_BYTES:
            self._said.appendleft(data[READ_BYTES:])
        return data[:READ_BYTES]

    def put(self, data: bytes) -> None:
        if self._broken or self.is_closed:
            raise StreamBroken("reset")
        self._outbox += data
        self._send()

    def _send(self) -> None:
        count = len(self._outbox) if self.room is None else min(self.room, len(self._outbox))
        self.heard += self._outbox[:count]
        del self._outbox[:count]
        if self.room is not None:
            self.room -= count
        self._change()

    async def flush(self, stall_s: float) -> None:
        while self._outbox:
            before = len(self._outbox)
            with trio.move_on_after(stall_s) as patience:
                await self._changed.wait()
            if self._broken:
                raise StreamBroken("reset")
            if patience.cancelled_caught and len(self._outbox) == before:
                raise StreamStalled(f"nothing taken for {stall_s:g}s")

    def half_close(self) -> None:
        self.is_half_closed = True

    def close(self) -> None:
        self.is_closed = True
        self._change()

    def reset(self) -> None:
        self.is_reset = True
        self.close()


class Bench:
    """One pool of one backend. Close it when the test is done."""

    def __init__(
        self,
        *,
        timeouts: ListenerTimeouts | None = None,
        limits: ListenerLimits | None = None,
        pool_timeouts: PoolTimeouts | None = None,
        pool_limits: PoolLimits | None = None,
    ) -> None:
        self.events: list[Event] = []
        self.access = Records()
        self.grid = Grid.create(1, 4)
        self.reactor = Reactor(self.events.append)
        self.router = Router(self.grid, 0, lambda backend: None)
        self.view = BackendView(BackendId("web", 1, 1), Address("127.0.0.1", 1), BACKEND_CELL)
        self.pool = PoolView(
            *("web", POOL_CELL, (self.view,), 1, "least_conn", None, pool_timeouts or PoolTimeouts()),
            *(pool_limits or PoolLimits(), DrainSettings(), 2),
        )
        settings = ListenerSettings(
            *("public", Address("", 80), "http", "web", (), limits or ListenerLimits()),
            timeouts or ListenerTimeouts(),
        )
        self.listener = ListenerView(1, LISTENER_CELL, settings)
        self.publish(self.view)
        idle = BackendConnections(self.reactor)
        self.context = Context(self.reactor, self.router, idle, lambda message: None, self.events.append, self.access)
        self.context.date = lambda: b""
        self.client = MemoryStream()

    def publish(self, *views: BackendView) -> None:
        pool = replace(self.pool, backends=views)
        self.router.apply(RoutingTable(self.router.table.epoch + 1, "edge", (self.listener,), (), (pool,)))

    def connection(self) -> tuple[MemoryStream, BackendConnection]:
        stream = MemoryStream()
        return stream, BackendConnection(self.view, None, stream)

    def idle(self) -> MemoryStream:
        """A connection to the backend that has served before: the next attempt uses it."""
        stream, connection = self.connection()
        self.context.backends.give_back(connection)
        return stream

    def lease(self) -> Lease:
        lease = self.router.claim(self.pool, LeaseKind.REQUEST, None)
        assert lease is not None
        return lease

    def begun(self, *, sent: bool = False) -> tuple[MemoryStream, Begun]:
        stream, connection = self.connection()
        return stream, Begun(self.lease(), connection, self.pool.timeouts, sent)

    def talk(self) -> Client:
        """A client that has been served before: its requests may use idle connections."""
        client = Client(self.client, self.listener, FACTS)  # type: ignore[arg-type]
        client.has_risked = True
        return client

    def exchange(self, request: bytes = GET, handover: Handover | None = None) -> Exchange:
        """An exchange whose head is read; the rest is in the client's buffer."""
        client = self.talk()
        end = head_end(request, 0, 1 << 16)
        client.buffer += request[end:]
        return Exchange(self.context, client, read_request(request[:end], self.context.lines, 100), handover)

    @property
    def leases(self) -> int:
        return self.grid.sum(BACKEND_CELL, Counter.LEASES)

    def count(self, counter: Counter) -> int:
        return self.grid.sum(BACKEND_CELL, counter)

    def close(self) -> None:
        """Close, and check that no work is in hand."""
        assert self.leases == 0
        self.context.backends.close()
        self.reactor.close()
        self.grid.close()
