"""Bytes both ways between a client and a backend until both ends are done: on the reactor, no task (DESIGN.md 4).

Knows two connected sockets and how bytes, ends and errors cross from one to the other. Knows nothing of the meaning of
the bytes (websocket.py does), and of leases only how one is cut. side.py handles the events of one socket. A client may
also be one stream of an HTTP/2 connection, and so may a backend (stream_side.py).

An end is passed on (half-close) after the bytes before it. A side that takes no more bytes may still have sent some: it
is read to its end first. Then both are closed.
"""

import socket
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Self

from lbproxy.worker.io.reactor import Reactor
from lbproxy.worker.io.splice import Pipe, Pipes
from lbproxy.worker.io.stream_end import StreamEnd
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.relay.side import Side
from lbproxy.worker.relay.stream_side import StreamSide


class Why(StrEnum):
    """The reasons for which a relay ends."""

    DONE = "done"  # both sides have ended, and every byte is through
    CUT = "cut"  # the grace of its lease was over
    CLIENT_GONE = "client_gone"  # reset, or dead
    BACKEND_GONE = "backend_gone"
    STALLED = "stalled"  # a side took no bytes for too long
    FAILED = "failed"  # by an exception of our own code
    MOVED = "moved"  # another worker has it


class Relay:
    """Owns both sockets (connected, non-blocking, unknown to the reactor) from the start to its end.

    `on_end(relay)` is called once, when both are closed: see `why`, `client.received`, `backend.received`. A write that
    makes no progress for `stall_s` ends the relay. With `pipes`, long transfers do not pass through Python.
    """

    __slots__ = ("_lease", "_on_end", "_pipes", "_trouble", "backend", "client", "reactor", "stall_s", "why")

    joins_ends = True  # the last bytes wait for the end behind them
    passes_resets = True  # a reset is passed on as a reset, so that no part is taken for the whole

    def __init__(
        self,
        reactor: Reactor,
        client_sock: socket.socket | StreamEnd,
        backend_sock: socket.socket | StreamEnd,
        *,
        stall_s: float,
        on_end: Callable[[Self], None],
        pipes: Pipes | None = None,
    ) -> None:
        self.reactor = reactor
        self._pipes = pipes  # None: every byte has to be seen
        self.stall_s = stall_s
        self.why: Why | None = None  # None while it goes on
        self.client = client = self._side(client_sock)
        self.backend = backend = self._side(backend_sock)
        client.other, backend.other = backend, client
        client.deliver, backend.deliver = backend.put, client.put
        self._on_end: Callable[[Any], None] = on_end
        self._lease: Lease | None = None
        self._trouble: Why | None = None

    def _side(self, end: socket.socket | StreamEnd) -> Side:
        return Side(self, end) if isinstance(end, socket.socket) else StreamSide(self, end)

    def hold(self, lease: Lease) -> None:
        """Make the relay the one that is cut with the lease. The owner releases the lease in `on_end`."""
        self._lease = lease
        lease.on_cut = self.cut

    def start(
        self, *, head: bytes = b"", greeting: bytes = b"", from_client: bytes = b"", from_backend: bytes = b""
    ) -> None:
        """Begin with the bytes in hand: of our own, `head` for the client and `greeting` for the backend, then earlier
        bytes from either side."""
        if self._lease is not None and self._lease.overdue:
            self.cut()  # its grace ended before there was a relay to be cut
            return
        if not (head or greeting or from_client or from_backend):  # the usual TCP session
            self.client.watch_first()
            self.backend.watch_first()
            return
        if head:
            self.client.put(head)
        if greeting:
            self.backend.put(greeting)
        if from_client:
            self.client.received += len(from_client)
            self.client.deliver(from_client)
        if from_backend:
            self.backend.received += len(from_backend)
            self.backend.deliver(from_backend)
        self.settle()

    def settle(self) -> None:
        """Decide, after anything but bytes has happened, whether the relay is over, and else what can go on."""
        if self.why is not None:
            return
        client, backend = self.client, self.backend
        # The bytes of a side are through when they are passed on to the end, or the other side takes none.
        if (client.broken or (backend.ended and not client.outbox)) and (
            backend.broken or (client.ended and not backend.outbox)
        ):
            self.finish(self._trouble or Why.DONE)
            return
        if backend.ended:
            client.hang_up()
        if client.ended:
            backend.hang_up()
        client.watch()
        backend.watch()

    @property
    def is_well(self) -> bool:
        """Neither side has failed so far, so no end has to be a reset."""
        return self._trouble is None

    # To another worker, or back

    @property
    def is_movable(self) -> bool:
        """Nothing is wrong with it, so that it can go on elsewhere as if it had begun there."""
        client, backend = self.client, self.backend
        is_whole = self.why is None and self.is_well and not (client.broken or backend.broken)
        return is_whole and client.is_plain and backend.is_plain

    def lift(self) -> None:
        """Stop moving bytes, and keep what is in hand. Until `go_on` or `let_go` no drain reaches the relay."""
        self.client.leave()
        self.backend.leave()
        if self._lease is not None:
            self._lease.forget()

    def go_on(self) -> None:
        """Begin with what the sides have in hand."""
        for side in (self.client, self.backend):
            if side.outbox:
                self.reactor.arm(side, self.stall_s)
        self.settle()

    def let_go(self) -> None:
        """Close our copies of the sockets, without an end for the peers: another process has the connection."""
        self._on_end = _nobody
        self.finish(Why.MOVED)

    def broke(self, end: Side) -> None:
        """Handle a failed read or write of one side."""
        end.abandon()
        if self._trouble is None:
            self._trouble = Why.CLIENT_GONE if end is self.client else Why.BACKEND_GONE
        self.settle()

    def cut(self) -> None:
        """End the relay at once."""
        self.finish(Why.CUT)

    def take_pipe(self) -> Pipe | None:
        """A pipe; None if none is left, or every byte has to be seen."""
        if self._pipes is None or not (self.client.is_plain and self.backend.is_plain):
            return None
        return self._pipes.take()

    def drop_pipe(self, pipe: Pipe) -> None:
        assert self._pipes is not None
        self._pipes.give_back(pipe)

    def stalled(self) -> None:
        self.finish(Why.STALLED)

    def abort(self) -> None:
        self.finish(Why.FAILED)

    def finish(self, why: Why) -> None:
        """Close both sockets, whatever still waits; once."""
        if self.why is not None:
            return
        self.why = why
        self.client.close(reset=self.passes_resets and why is Why.BACKEND_GONE)
        self.backend.close(reset=self.passes_resets and why is Why.CLIENT_GONE)
        on_end, self._on_end = self._on_end, _nobody
        on_end(self)
        # These objects refer to each other. If that were left to the collector, thousands of relays would wait for it.
        if self._lease is not None:
            self._lease.forget()
        client, backend = self.client, self.backend
        client.deliver = backend.deliver = _nobody
        del client.other, client.relay, backend.other, backend.relay


def _nobody(what: object) -> None:
    """The callback of a relay that is over."""


ERRORS = {
    Why.CUT: "cut",
    Why.CLIENT_GONE: "client_gone",
    Why.BACKEND_GONE: "connection_terminated",
    Why.STALLED: "connection_write_timeout",
    Why.FAILED: "proxy_internal_error",
}


def error_of(relay: Relay) -> str | None:
    """How a relay ended, as an RFC 9209 error type; None: well."""
    return None if relay.why is None else ERRORS.get(relay.why)
