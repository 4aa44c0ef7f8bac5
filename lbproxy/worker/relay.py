"""Bytes both ways between a client and a backend until both ends are done: on the reactor, no task (DESIGN.md 4).

Knows two connected sockets and how bytes, ends and errors cross from one to the other; nothing of what the bytes mean
(websocket_relay.py does), and nothing of leases but how one is cut. Memory is bounded: while one side cannot be
written, the other is not read, so that at most one read (64 KiB) waits in each direction. While nothing waits there is
no buffer at all.

An end is passed on (half-close), after the bytes before it. A side that does not take bytes any more may still have
said something: it is read to its end first. Then both are closed.
"""

import contextlib
import socket
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Self

from lbproxy.drain import Lease
from lbproxy.worker.reactor import ERROR, HANGUP, NEVER, READ, WRITE, Reactor
from lbproxy.worker.stream import RESET_ON_CLOSE

READ_BYTES = 16 * 1024  # fits most messages: recv allocates what it is asked for
BULK_BYTES = 64 * 1024  # as long as reads come back full
TURN_BYTES = 256 * 1024  # moved by one event before others get their turn

_WRITABLE = WRITE | ERROR | HANGUP
_READABLE = READ | ERROR | HANGUP


class Why(StrEnum):
    """A relay is over."""

    DONE = "done"  # both ends said all they had to say
    CUT = "cut"  # its grace was over
    CLIENT_GONE = "client_gone"  # reset, or dead
    BACKEND_GONE = "backend_gone"
    STALLED = "stalled"  # nothing was taken for too long
    FAILED = "failed"  # a mistake of ours


class End:
    """One socket of a relay, as handler and timed item of the reactor. What is read here goes to `deliver`."""

    __slots__ = (
        "_events",
        "_shut",
        "_size",
        "broken",
        "deadline",
        "deliver",
        "ended",
        "other",
        "outbox",
        "queued_at",
        "received",
        "relay",
        "sock",
    )

    other: "End"
    deliver: Callable[[bytes], None]

    def __init__(self, relay: "Relay", sock: socket.socket) -> None:
        self.relay = relay
        self.sock = sock
        self.received = 0  # bytes
        self.outbox = b""  # what the socket did not take yet
        self.ended = False  # its last byte has been read
        self.broken = False  # it takes nothing any more: what is put is dropped
        self.deadline = NEVER
        self.queued_at = NEVER
        self._size = READ_BYTES
        self._events = 0  # registered for
        self._shut = False

    def on_ready(self, mask: int) -> None:
        # Hot: a small message is one event, one recv, one send. Everything else is behind a branch.
        if self.outbox and mask & _WRITABLE:
            self._flush()
        if self._events & READ and mask & _READABLE:
            self.pump()

    def pump(self) -> None:
        """Read and deliver, until nothing is there, or the other side does not take it, or it is others' turn."""
        other, sock, deliver = self.other, self.sock, self.deliver
        turn = TURN_BYTES
        while not (other.outbox or self.ended) and turn > 0:
            size = self._size
            try:
                data = sock.recv(size)
            except BlockingIOError:
                return
            except OSError:
                self.ended = True
                self.relay.broke(self)
                return
            if not data:
                self.ended = True
                self.relay.settle()
                return
            got = len(data)
            self.received += got
            deliver(data)
            if got < size:
                if got < READ_BYTES:
                    self._size = READ_BYTES
                return  # what may have come meanwhile is another event
            self._size = BULK_BYTES
            deliver = self.deliver  # may have changed with what came
            turn -= got

    def put(self, data: bytes) -> None:
        """Send it now; what is not taken waits, and the other side is not read."""
        if self.broken or not data:
            return
        if self.outbox:
            self.outbox += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.relay.broke(self)
            return
        if sent < len(data):
            self.outbox = data[sent:]
            self.relay.reactor.arm(self, self.relay.stall_s)
            self.relay.settle()

    def _flush(self) -> None:
        relay = self.relay
        try:
            sent = self.sock.send(self.outbox)
        except BlockingIOError:
            return
        except OSError:
            relay.broke(self)
            return
        self.outbox = self.outbox[sent:]
        if self.outbox:
            relay.reactor.arm(self, relay.stall_s)
            return
        # More is likely to wait there. Reading it now saves changing what both are registered for, and back.
        self.other.pump()
        relay.settle()

    def abandon(self) -> None:
        """It takes nothing any more."""
        self.broken = True
        self.outbox = b""

    @property
    def is_through(self) -> bool:
        """What it said has been passed on, to the end, or nobody takes it."""
        return self.other.broken or (self.ended and not self.other.outbox)

    def pass_end(self) -> None:
        """The other side has ended: say so, after its last bytes."""
        if self.other.ended:
            self.hang_up()

    def hang_up(self) -> None:
        """Half-close: nothing more is put here. Not while bytes wait."""
        if not self.outbox and not self._shut:
            self._shut = True
            with contextlib.suppress(OSError):  # reset meanwhile: reading it will tell
                self.sock.shutdown(socket.SHUT_WR)

    def watch(self) -> None:
        """Register for what can go on. For nothing means not at all: an empty mask would spin on a hang-up."""
        events = 0 if self.ended or self.other.outbox else READ
        if self.outbox:
            events |= WRITE
        before, self._events = self._events, events
        if events == before:
            return
        reactor, fd = self.relay.reactor, self.sock.fileno()
        if not events:
            reactor.unregister(fd)
        elif before:
            reactor.modify(fd, events)
        else:
            reactor.register(fd, events, self.on_ready)

    def on_deadline(self) -> None:
        if self.outbox:
            self.relay.finish(Why.STALLED)

    def close(self, *, reset: bool) -> None:
        reactor = self.relay.reactor
        self.ended = True
        self.abandon()
        if self._events:
            self._events = 0
            reactor.unregister(self.sock.fileno())
        reactor.disarm(self)
        if reset:
            with contextlib.suppress(OSError):  # reset already
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()

    def abort(self) -> None:
        if hasattr(self, "relay"):  # not over yet
            self.relay.abort()


class Relay:
    """Owns both sockets (connected, non-blocking, unknown to the reactor) from the start to its end.

    `on_end(relay)` is called once, when both are closed: see `why`, `client.received`, `backend.received`. A write that
    makes no progress for `stall_s` ends it.
    """

    __slots__ = ("_lease", "_on_end", "_trouble", "backend", "client", "reactor", "stall_s", "why")

    passes_resets = True  # a reset arrives as a reset, so that nobody takes a part for the whole

    def __init__(
        self,
        reactor: Reactor,
        client_sock: socket.socket,
        backend_sock: socket.socket,
        *,
        stall_s: float,
        on_end: Callable[[Self], None],
    ) -> None:
        self.reactor = reactor
        self.stall_s = stall_s
        self.why: Why | None = None  # None while it goes on
        self.client = client = End(self, client_sock)
        self.backend = backend = End(self, backend_sock)
        client.other, backend.other = backend, client
        client.deliver, backend.deliver = backend.put, client.put
        self._on_end: Callable[[Any], None] = on_end
        self._lease: Lease | None = None
        self._trouble: Why | None = None

    def hold(self, lease: Lease) -> None:
        """From now on this is how the lease is cut. Releasing it is the owner's, in `on_end`."""
        self._lease = lease
        lease.cut = self.cut

    def start(self, *, head: bytes = b"", from_client: bytes = b"", from_backend: bytes = b"") -> None:
        """Begin, with what is in hand: `head` of our own for the client, then what had come from either side."""
        if self._lease is not None and self._lease.overdue:
            self.cut()  # its grace ended before there was a relay to be cut
            return
        if head:
            self.client.put(head)
        for end, data in ((self.client, from_client), (self.backend, from_backend)):
            if data:
                end.received += len(data)
                end.deliver(data)
        self.settle()

    def settle(self) -> None:
        """Something other than bytes has happened: is it over, and if not, what can go on?"""
        if self.why is not None:
            return
        client, backend = self.client, self.backend
        if client.is_through and backend.is_through:
            self.finish(self._trouble or Why.DONE)
            return
        client.pass_end()
        backend.pass_end()
        client.watch()
        backend.watch()

    def broke(self, end: End) -> None:
        """Writing to it, or reading from it, failed."""
        end.abandon()
        if self._trouble is None:
            self._trouble = Why.CLIENT_GONE if end is self.client else Why.BACKEND_GONE
        self.settle()

    def cut(self) -> None:
        """Now."""
        self.finish(Why.CUT)

    def abort(self) -> None:
        self.finish(Why.FAILED)

    def finish(self, why: Why) -> None:
        """Close both, whatever they still had to say; once."""
        if self.why is not None:
            return
        self.why = why
        self.client.close(reset=self.passes_resets and why is Why.BACKEND_GONE)
        self.backend.close(reset=self.passes_resets and why is Why.CLIENT_GONE)
        on_end, self._on_end = self._on_end, _nobody
        on_end(self)
        # Everybody here knows everybody: left to the collector, relays that are over would wait for it in thousands.
        if self._lease is not None:
            self._lease.forget()
        for end in (self.client, self.backend):
            end.deliver = _nobody
            del end.other, end.relay


def _nobody(what: object) -> None:
    """Hears of what is over."""


def notice_dead_peer(sock: socket.socket, idle_s: float) -> None:
    """A peer that vanished without a word is noticed within about `idle_s` of silence.

    Accepted sockets inherit this from the listening one, where it costs nothing per connection. (Not TCP_USER_TIMEOUT:
    that would also end a peer that is alive and just does not read for so long.)
    """
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _seconds(idle_s / 2))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _seconds(idle_s / 8))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _seconds(seconds: float) -> int:
    """As the kernel takes it: whole, 1 to 32767."""
    return min(max(1, round(seconds)), 32767)
