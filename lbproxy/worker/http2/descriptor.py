"""The socket of an HTTP/2 connection on the reactor: reading, sending, and the end. client.py is what it carries.

Everything that a batch of the reactor brings about leaves with one send: the answers of ten streams cost one TLS
record. While the socket takes nothing, nothing more is framed: what waits stays with its stream, which is bounded.

What waits is bounded for all streams of a connection together, too. Over FULL_BYTES a stream reads its backend only
while nothing of its own waits: a client that takes nothing of some streams holds up no other one. And the more streams
there are, the less is read at a time (`share_of`).
"""

import socket

from lbproxy.wire.http2.connection import Http2Connection
from lbproxy.worker.io.reactor import NEVER, READ, WRITE, Reactor

RECV_BYTES = 64 * 1024
MOST_PUT_BYTES = 64 * 1024  # behind what the socket did not take: a client that does not read is not listened to
AT_ONCE_BYTES = 16 * 1024  # more of one body does not wait for the end of the batch
FULL_BYTES = 256 * 1024  # what a connection may hold is 1 MiB
LEAST_READ_BYTES, MOST_READ_BYTES = 4 * 1024, 64 * 1024
LINGER_S = 1.0


def share_of(streams: int) -> int:
    """How much one of so many streams reads at a time of its backend's answer, in bytes."""
    return max(LEAST_READ_BYTES, min(MOST_READ_BYTES, FULL_BYTES // (streams or 1)))


class Http2Descriptor:
    """A handler and a timed item of the reactor. The class above it says what bytes mean, and keeps the deadline."""

    __slots__ = (
        "_flush_is_planned",
        "_has_ended",
        "client_events",
        "closing",
        "deadline",
        "fd",
        "is_closed",
        "queued_at",
        "reactor",
        "sock",
        "unsent",
        "wire",
    )

    def __init__(self, reactor: Reactor, sock: socket.socket, wire: Http2Connection) -> None:
        self.reactor = reactor
        self.sock = sock
        self.fd = sock.fileno()
        self.wire = wire
        self.client_events = 0  # for which the descriptor is registered; 0: it is not
        self.deadline = self.queued_at = NEVER
        self.unsent = b""  # that the socket did not take
        self.closing = False  # our last word is put,
        self._has_ended = False  # and sent
        self.is_closed = False
        self._flush_is_planned = False

    # What the class above does

    def on_bytes(self, data: bytes) -> None:
        raise NotImplementedError

    def on_room(self) -> None:
        """The socket has taken what it had refused."""
        raise NotImplementedError

    def on_closed(self, why: str) -> None:
        raise NotImplementedError

    # The reactor's side

    def listen(self) -> None:
        if self.client_events:
            self.reactor.handle(self.fd, self)
        else:
            self.client_events = READ
            self.reactor.register(self.fd, READ, self)

    def on_ready(self, mask: int) -> None:
        if mask & WRITE:
            self.flush()
        if mask & ~WRITE and not self.is_closed:
            self._read()

    def _read(self) -> None:
        if self.wire.is_paused:
            return
        if self.unsent and self.wire.output.put_bytes > MOST_PUT_BYTES:
            self._watch(WRITE)
            return
        try:
            data = self.sock.recv(RECV_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            self.close(exc.strerror or str(exc))
            return
        if not data:
            self.close("the client ended its connection")
        elif not self.closing:
            self.on_bytes(data)

    # What a stream asks for (stream.Carrier)

    def pending(self, stream_id: int) -> int:
        """Bytes of the stream that wait for a window, for their turn, or for the socket."""
        return self.wire.pending(stream_id)

    @property
    def is_full(self) -> bool:
        """All streams together have put so much that none may have more than one read waiting."""
        return self.wire.output.queued_bytes > FULL_BYTES

    def send_head(self, stream_id: int, block: bytes, *, end: bool) -> None:
        self.wire.send_head(stream_id, block, end=end)
        self.plan_flush()

    def send_data(self, stream_id: int, payload: bytes, *, end: bool) -> None:
        self.wire.send_data(stream_id, payload, end=end)
        if len(payload) > AT_ONCE_BYTES and not self.unsent:
            self.flush()
        else:
            self.plan_flush()

    def credit(self, stream_id: int, size: int) -> None:
        self.wire.credit(stream_id, size)
        self.plan_flush()

    # Sending

    def plan_flush(self) -> None:
        """What was put leaves behind the batch."""
        if not self._flush_is_planned:
            self._flush_is_planned = True
            self.reactor.defer(self._flush_planned)

    def _flush_planned(self) -> None:
        self._flush_is_planned = False
        if not self.is_closed:
            self.flush()

    def flush(self) -> None:
        was_blocked = bool(self.unsent)
        while data := self.unsent or self.wire.take():
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as exc:
                self.close(exc.strerror or str(exc))
                return
            self.unsent = data[sent:]
            if self.unsent:
                self._watch(READ | WRITE)
                return
        if was_blocked:
            self._watch(READ)
            self.on_room()
        if self.closing:
            self._say_end()

    def _watch(self, events: int) -> None:
        if events != self.client_events:
            self.client_events = events
            self.reactor.modify(self.fd, events)

    # The end

    def close_gently(self) -> None:
        """What was put still leaves; then the client's end is awaited, so that a reset does not swallow it."""
        if not self.closing:
            self.closing = True
            self.reactor.arm(self, LINGER_S)
            self.plan_flush()

    def _say_end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError as exc:
                self.close(exc.strerror or str(exc))

    def close(self, why: str) -> None:
        """At once. The exchanges see that their client has left."""
        if self.is_closed:
            return
        self.is_closed = True
        if self.client_events:
            self.reactor.forget(self.fd)
        self.reactor.disarm(self)
        self.sock.close()
        self.on_closed(why)
        # The reactor's heap may hold this object for a minute, and it must not hold a megabyte.
        self.unsent = self.wire.kept = b""
        self.wire.streams.clear()
        self.wire.output.abandon()

    def on_deadline(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        """A mistake of ours costs this connection."""
        self.close("a mistake of lbproxy's own")
