"""One HTTP/2 connection to a backend, on the reactor. Many exchanges share it, each on a stream of its own.

Knows frames by way of wire/http2, one socket, and who waits on which stream. Knows nothing of exchanges and leases.
What all streams put within one batch of the reactor leaves in one send. A backend that is silent while streams are
open is asked by PING whether it lives.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import trio

from lbproxy.wire.head import RESPONSE_HEAD_BYTES
from lbproxy.wire.http2.connection import Http2Connection
from lbproxy.wire.http2.errors import (
    CANCEL,
    NO_ERROR,
    REFUSED_STREAM,
    ConnectionFailed,
    NoStreams,
    StreamFailed,
    name_of,
)
from lbproxy.wire.http2.hpack import Fields
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.backends.http2_settings import MOST_STREAMS, SETTINGS, UNTOLD_STREAMS
from lbproxy.worker.backends.liveness import PONG_S, QUIET_S, Liveness
from lbproxy.worker.backends.stream_owner import Loss, StreamOwner
from lbproxy.worker.io.dead_peer import notice_dead_peer
from lbproxy.worker.io.reactor import NEVER, READ, WRITE, Reactor

RECV_BYTES: Final = 64 * 1024
LOOKS: Final = 3  # data, and an end behind it
READS_AT_ONCE: Final = 8  # before others have their turn


class SharedConnection:
    """`connection`: connected, and TLS has agreed on h2. `on_closed`: called once, when it carries no stream any more
    and never will. `untold_streams`: how many may be open until the backend has said it."""

    __slots__ = (
        "_alive",
        "_flush_is_due",
        "_idle_since",
        "_is_broken",
        "_is_reading",
        "_keepalive_s",
        "_on_closed",
        "_outbox",
        "_owners",
        "_unsent",
        "_untold_streams",
        "_why_going",
        "_wire",
        "backend",
        "deadline",
        "has_served",
        "has_settings",
        "is_closed",
        "is_going",
        "is_late",
        "queued_at",
        "reactor",
        "settled",
        "transport",
    )

    def __init__(
        self,
        connection: BackendConnection,
        reactor: Reactor,
        keepalive_s: float,
        on_closed: Callable[["SharedConnection"], None],
        untold_streams: int = UNTOLD_STREAMS,
    ) -> None:
        self.backend = connection.backend
        self.is_going = False  # it takes no further stream
        self.is_closed = False
        self.has_served = False  # an answer has come on it
        self.deadline = self.queued_at = NEVER
        self.transport = connection
        self.reactor = reactor
        self._keepalive_s = keepalive_s
        self._on_closed = on_closed
        self._wire = Http2Connection(self, SETTINGS, client=True)
        self._owners: dict[int, StreamOwner] = {}
        self._outbox = b""  # taken from the wire, and not sent yet
        self._unsent: list[int] = []  # streams whose head has perhaps not left
        self._flush_is_due = False
        self._is_reading = False
        self._is_broken = False  # nothing can be sent
        self.has_settings = False
        self.is_late = False  # its SETTINGS were waited for in vain
        self.settled = trio.Event()  # the backend's SETTINGS are there, or will never be
        self._untold_streams = untold_streams
        self._why_going = ""  # what the backend's GOAWAY said
        now = reactor.now
        self._idle_since = now  # NEVER: streams are open
        self._alive = Liveness(now)
        notice_dead_peer(connection.sock, QUIET_S + PONG_S)
        reactor.register_backend(connection.fd, READ, self)
        self._wire.begin()
        self._plan_flush()
        reactor.arm(self, keepalive_s)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "going" if self.is_going else "open"
        return f"<SharedConnection {self.backend.id}, {state}, {len(self._owners)} streams>"

    # What the exchanges ask for

    @property
    def streams(self) -> int:
        return len(self._owners)

    @property
    def has_room(self) -> bool:
        return not self.is_going and len(self._owners) < self.most_streams

    @property
    def most_streams(self) -> int:
        """What the backend allows, or is expected to."""
        return min(self._wire.peer.max_streams, MOST_STREAMS) if self.has_settings else self._untold_streams

    @property
    def takes_tunnels(self) -> bool:
        """The backend takes an extended CONNECT (RFC 8441), as far as its SETTINGS have said."""
        return self._wire.peer.connect_protocol

    @property
    def is_congested(self) -> bool:
        """The socket does not take what is there: nothing more should be put."""
        return bool(self._outbox)

    def look(self) -> None:
        """Read what has come and was not read yet: an end or a GOAWAY on a connection that was idle."""
        for _ in range(LOOKS):
            if self.is_closed or not self._read():
                return

    def begin_stream(self, owner: StreamOwner, block: bytes, *, end: bool) -> int:
        """The id of a new stream, whose head is put. Raises NoStreams; ask has_room first."""
        try:
            stream_id = self._wire.open_stream()
        except NoStreams:
            self.is_going = True  # it has no further ids
            raise
        if not self._owners:
            self._idle_since = NEVER
            self._alive.begin(self.reactor.now)
            self.reactor.arm_at(self, self._alive.next_at)
        self._owners[stream_id] = owner
        self._unsent.append(stream_id)
        self._wire.send_head(stream_id, block, end=end)
        self._plan_flush()
        return stream_id

    def pass_on(self, stream_id: int, owner: StreamOwner) -> None:
        """Another owner for a stream that is not lost."""
        if stream_id in self._owners:
            self._owners[stream_id] = owner

    def put(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        self._wire.send_data(stream_id, data, end=end)
        self._plan_flush()

    def put_trailers(self, stream_id: int, block: bytes) -> None:
        self._wire.send_head(stream_id, block, end=True)
        self._plan_flush()

    def pending(self, stream_id: int) -> int:
        """Bytes of the stream that wait for a window."""
        return self._wire.pending(stream_id)

    def credit(self, stream_id: int, size: int) -> None:
        """`size` bytes that came on the stream are used: the backend may send as many."""
        self._wire.credit(stream_id, size)
        if self._wire.output.is_wanted:
            self._plan_flush()

    def leave(self, stream_id: int) -> None:
        """The owner has done with the stream. One that is not over on both sides is cancelled."""
        if self._owners.pop(stream_id, None) is None:
            return
        self._wire.reset(stream_id, CANCEL)
        if self._wire.output.is_wanted:
            self._plan_flush()
        self._look_idle()

    def retire(self) -> None:
        """No further stream; it closes when its last one is over."""
        self.is_going = True
        self._look_idle()

    def abort(self) -> None:
        """Close at once, whatever is on it."""
        self._lose(Loss("the connection was closed on our side"))

    def _look_idle(self) -> None:
        if self._owners or self.is_closed or self._is_reading:
            return
        if self.is_going:
            self._part()
        elif self._idle_since == NEVER:
            self._idle_since = self.reactor.now
            self._wire.rest()
            self.reactor.arm(self, self._keepalive_s)

    def _part(self) -> None:
        """Say goodbye and close: the connection is idle and not needed."""
        self._wire.goaway(0, NO_ERROR)
        self._flush()
        self._lose(Loss("the connection was idle"))

    # On the reactor

    def on_ready(self, mask: int) -> None:
        if mask & WRITE and self._outbox:
            self._flush()
        if not self.is_closed and mask & ~WRITE:
            self._read()

    def _read(self) -> bool:
        """False: nothing had come."""
        self._is_reading = True
        has_read = False
        try:
            for _ in range(READS_AT_ONCE):
                try:
                    data = self.transport.sock.recv(RECV_BYTES)
                except BlockingIOError:
                    break
                except OSError as exc:
                    self._lose(Loss(f"the backend broke off: {exc.strerror or exc}"))
                    break
                if not data:
                    self._lose(Loss(self._why_going or "the backend closed the connection"))
                    break
                has_read = True
                self._alive.heard(self.reactor.now)
                self._wire.feed(data, self.reactor.now)
                if self.is_closed or len(data) < RECV_BYTES:
                    break
            else:
                self.reactor.defer(self._read_on)  # TLS may hold bytes that no descriptor tells of
        except ConnectionFailed as exc:
            self._flush()
            self._lose(Loss(f"the backend does not keep to HTTP/2: {exc}", token="http_protocol_error"))
        finally:
            self._is_reading = False
        self._flush()
        self._look_idle()
        return has_read

    def _read_on(self) -> None:
        if not self.is_closed:
            self._read()

    def _plan_flush(self) -> None:
        if not self._flush_is_due and not self._outbox and not self._is_reading:
            self._flush_is_due = True
            self.reactor.defer(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_is_due = False
        self._flush()

    def _flush(self) -> None:
        """Send what there is, as far as the socket takes it; the rest when it takes more."""
        if self.is_closed or self._is_broken:
            return
        before = bool(self._outbox)
        while data := self._outbox or self._wire.take():
            try:
                sent = self.transport.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as exc:
                self._is_broken = True
                if not self._is_reading:
                    self._read()  # what it said before decides
                self._lose(Loss(f"the backend broke off: {exc.strerror or exc}"))
                return
            self._outbox = data[sent:]
            if self._outbox:
                break
        else:
            self._unsent.clear()
        if bool(self._outbox) is not before:
            self.reactor.modify(self.transport.fd, READ | WRITE if self._outbox else READ)
            if before:
                for owner in list(self._owners.values()):
                    owner.on_writable()

    def on_deadline(self) -> None:
        now, reactor, alive = self.reactor.now, self.reactor, self._alive
        if not self._owners:
            if now >= self._idle_since + self._keepalive_s:
                self._part()
            else:
                reactor.arm_at(self, self._idle_since + self._keepalive_s)
        elif alive.is_dead(now):
            reason = f"the backend did not answer a PING within {PONG_S:g}s"
            self._lose(Loss(reason, status=504, token="connection_read_timeout"))
        else:
            if now >= alive.next_at:
                alive.pinged(now)
                self._wire.ping(b"lbproxy?")
                self._flush()
            if not self.is_closed:
                reactor.arm_at(self, alive.next_at)

    def _lose(self, loss: Loss) -> None:
        """The connection is over, and what is still on it is lost."""
        if self.is_closed:
            return
        self.is_closed = self.is_going = True
        self.settled.set()
        self.reactor.unregister(self.transport.fd)
        self.reactor.disarm(self)
        self.transport.close()
        owners, self._owners = self._owners, {}
        self._on_closed(self)
        for stream_id, owner in owners.items():
            owner.on_lost(replace(loss, is_accident=True, is_unread=stream_id in self._unsent))

    # Told by wire/http2

    def on_head(self, stream_id: int, fields: Fields, end: bool) -> None:
        self._alive.said(self.reactor.now)
        self.has_served = True
        if (owner := self._owners.get(stream_id)) is not None:
            owner.on_head(fields, end)

    def on_large_head(self, stream_id: int, fields: Fields, end: bool) -> None:
        self._drop(
            stream_id, f"a head or trailers over {RESPONSE_HEAD_BYTES} bytes", "http_response_header_section_size"
        )

    def on_data(self, stream_id: int, data: bytes, size: int, end: bool) -> None:
        self._alive.said(self.reactor.now)
        if (owner := self._owners.get(stream_id)) is not None:
            owner.on_data(data, size, end)
        else:
            self._wire.credit(stream_id, size)

    def on_trailers(self, stream_id: int, fields: Fields) -> None:
        self._alive.said(self.reactor.now)
        if (owner := self._owners.get(stream_id)) is not None:
            owner.on_trailers(fields)

    def on_writable(self, stream_id: int) -> None:
        if (owner := self._owners.get(stream_id)) is not None:
            owner.on_writable()

    def on_reset(self, stream_id: int, code: int) -> None:
        owner = self._owners.pop(stream_id, None)
        if owner is None:
            return
        is_unread = code == REFUSED_STREAM
        if is_unread and self._why_going:
            owner.on_lost(Loss(self._why_going, is_unread=True, is_accident=True))
        else:
            owner.on_lost(Loss(f"the backend reset the stream: {name_of(code)}", is_unread=is_unread))
        self._look_idle()

    def on_failed(self, failure: StreamFailed) -> None:
        self._drop(failure.stream_id, f"the backend does not keep to HTTP/2: {failure}", "http_protocol_error")

    def _drop(self, stream_id: int, reason: str, token: str) -> None:
        self._wire.reset(stream_id, CANCEL)
        if (owner := self._owners.pop(stream_id, None)) is not None:
            owner.on_lost(Loss(reason, token=token))
        self._look_idle()

    def on_goaway(self, last_id: int, code: int, debug: bytes) -> None:
        self.is_going = True
        text = debug[:100].decode("ascii", "backslashreplace")
        self._why_going = f"the backend goes away: {name_of(code)}" + (f" ({text})" if text else "")

    def on_ping_ack(self, payload: bytes) -> None:
        """Whatever came has put the deadline off."""

    def on_settings(self) -> None:
        self.has_settings = True
        self.settled.set()
