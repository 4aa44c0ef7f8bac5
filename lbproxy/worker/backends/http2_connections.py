"""The HTTP/2 connections of one worker to its backends: few, shared by all exchanges.

A further one is made when those that stand carry as many streams as they may. Exchanges that come while one is being
made wait for it together. Knows tables as little as connections.py.
"""

from collections.abc import Awaitable, Callable, Sequence

import trio

from lbproxy.errors import LbproxyError
from lbproxy.model import BackendView
from lbproxy.settings import PoolTimeouts
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.backends.http2_connection import SharedConnection
from lbproxy.worker.backends.http2_settings import MOST_STREAMS, UNTOLD_STREAMS
from lbproxy.worker.backends.http2_stream import BackendStream, first_with_room
from lbproxy.worker.io.reactor import Reactor

SETTINGS_S = 1.0  # a backend says them at once

Connect = Callable[[BackendView, float], Awaitable[BackendConnection]]


class _Making:
    """A connection that is being made, and how many wait for it."""

    def __init__(self) -> None:
        self.waiting = 1
        self.done = trio.Event()
        self.failure: LbproxyError | None = None


class SharedConnections:
    """`connect`: raises what it likes of LbproxyError; everyone who waits for the connection gets it."""

    def __init__(self, reactor: Reactor, connect: Connect) -> None:
        self._reactor = reactor
        self._connect = connect
        self.encoded = EncodedLines()
        self._by_cell: dict[int, list[SharedConnection]] = {}
        self._making: dict[int, list[_Making]] = {}
        self._allowed: dict[int, int] = {}  # streams on a connection, as the last one that closed knew it

    def ready(self, backend: BackendView) -> SharedConnection | None:
        """A connection that takes a stream now; None: one has to be made, or waited for."""
        return first_with_room(self._by_cell.get(backend.cell, ()))

    def count(self, backend: BackendView) -> int:
        return len(self._by_cell.get(backend.cell, ()))

    async def open(self, backend: BackendView, timeouts: PoolTimeouts, *, fresh: bool = False) -> BackendStream:
        """A stream that has not begun: begin it before anything is awaited, or its place may be taken.

        `fresh`: a kept connection has ended under this request; what ends it now is no accident any more.
        """
        while True:
            standing = self._by_cell.get(backend.cell, ())
            connection = first_with_room(standing)
            if connection is not None and not connection.streams:
                connection.look()
                if not connection.has_room:
                    continue
            if connection is not None:
                return BackendStream(connection, reused=connection.has_served and not fresh)
            if await self._has_settled(standing):
                continue
            most = self._allowed.get(backend.cell, MOST_STREAMS)
            makings = self._making.setdefault(backend.cell, [])
            making = next((making for making in makings if making.waiting < most), None)
            if making is None:
                return BackendStream(await self._make(backend, timeouts, makings), reused=False)
            making.waiting += 1
            await making.done.wait()
            if making.failure is not None:
                raise making.failure

    async def _has_settled(self, standing: Sequence[SharedConnection]) -> bool:
        """Whether one of these has only now heard how many streams it may carry: a crowd that comes first waits for
        that, and makes no connections that nobody needs."""
        for connection in standing:
            if connection.has_settings:
                self._allowed[connection.backend.cell] = connection.most_streams
        young = next((one for one in standing if not (one.has_settings or one.is_going or one.is_late)), None)
        if young is None:
            return False
        with trio.move_on_after(SETTINGS_S) as patience:
            await young.settled.wait()
        young.is_late = young.is_late or patience.cancelled_caught
        return True

    async def _make(self, backend: BackendView, timeouts: PoolTimeouts, makings: list[_Making]) -> SharedConnection:
        making = _Making()
        makings.append(making)
        try:
            connection = await self._connect(backend, timeouts.connect_s)
        except LbproxyError as exc:
            making.failure = exc
            raise
        finally:  # cancelled: one of those who wait makes it
            makings.remove(making)
            making.done.set()
        untold = self._allowed.get(backend.cell, UNTOLD_STREAMS)
        shared = SharedConnection(connection, self._reactor, timeouts.keepalive_s, self._forget_closed, untold)
        self._by_cell.setdefault(backend.cell, []).append(shared)
        return shared

    def _forget_closed(self, connection: SharedConnection) -> None:
        cell = connection.backend.cell
        if connection.has_settings:
            self._allowed[cell] = connection.most_streams
        left = self._by_cell[cell]
        left.remove(connection)
        if not left:
            del self._by_cell[cell]

    def forget(self, backend: BackendView) -> None:
        """The backend has left the table: its connections close when their last stream is over."""
        for connection in list(self._by_cell.get(backend.cell, ())):
            connection.retire()
        self._allowed.pop(backend.cell, None)
        self._making.pop(backend.cell, None)

    def close(self) -> None:
        for connections in list(self._by_cell.values()):
            for connection in list(connections):
                if connection.streams:
                    connection.abort()
                else:
                    connection.retire()
