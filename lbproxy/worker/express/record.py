"""What the express lane knows of one client connection, and every way an exchange on it can end.

One record per connection, used again for every exchange. The way there is request.py, the way back reply.py,
long bodies body.py; all are one class, split where a reader would pause. Knows deadlines and counting; decides
nothing.
"""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lbproxy.link.grid import Counter
from lbproxy.model import ListenerView
from lbproxy.settings import PoolTimeouts
from lbproxy.telemetry.access import AccessRecord
from lbproxy.telemetry.events import ExchangeFailed
from lbproxy.wire.head import RequestHead, ResponseHead
from lbproxy.wire.head_cache import RepeatedRequest
from lbproxy.wire.head_template import ReplyShape, RequestShape, Values
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.backends.connections import BackendConnection, is_silent
from lbproxy.worker.io.reactor import NEVER, READ
from lbproxy.worker.io.read_size import RECV_BYTES
from lbproxy.worker.io.splice import Pipe
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.task.client import LAST_REQUEST_S, READ_AHEAD_BYTES

if TYPE_CHECKING:
    from lbproxy.worker.lanes import Lanes

# Why an answer breaks off that has begun: RFC 9209 error type, and the sentence for the operator.
CUT_SHORT = {
    "cut": "the grace of the drain is over",
    "http_response_incomplete": "the backend broke off in its body",
    "connection_read_timeout": "the response body stalled",
}
CLIENT_CLOSED = 499  # in the log only


class Seldom(Lease):
    """What a small exchange that repeats does not touch.

    A class by itself because the slots of one class lie together: with thousands of clients none of them is in the
    processor's caches when it speaks, and each line of 64 bytes that need not be fetched counts.
    """

    __slots__ = (
        "_body_left",
        "_from_head",
        "_out",
        "_pipe",
        "_read_under",
        "_shaped",
        "fd",
        "has_risked",
        "queued_at",
        "raw",
        "request_bytes",
        "unsent",
    )

    _body_left: int  # still to come from the backend
    _from_head: ResponseHead
    _out: bytes  # what the client has not taken yet
    _pipe: Pipe | None  # for the rest of a large body
    _read_under: ListenerView | None  # the limits that `raw` and its head passed; None: they are not of one request
    _shaped: tuple[ReplyShape, Values, int] | None  # what read the head of the answer, and what it found
    fd: int
    has_risked: bool  # a request that may not be replayed has gone out: the next may use a kept connection
    queued_at: float
    raw: bytes  # the head of the request, as it came
    request_bytes: int  # of the body, as far as they are to be counted: all of it, less `upload_left`
    unsent: bytes  # what the backend has not taken yet


class ExpressRecord(Seldom):
    """It is its own lease: one object less for each exchange. Only the task lane gets one that stands by itself."""

    __slots__ = (
        "_bare",
        "_close_after",
        "_connection",
        "_lease",
        "_reading",
        "_repeated",
        "_reply_bytes",
        "_shaped_head",
        "_status",
        "_too_late",
        "buffer",
        "deadline",
        "facts",
        "lanes",
        "like",
        "payload",
        "recv_bytes",
        "request_id",
        "sock",
        "timeouts",
        "upload_left",
        "view",
    )

    lanes: "Lanes"
    sock: socket.socket
    view: ListenerView
    facts: ClientFacts
    deadline: float
    buffer: bytes  # what the client said and nobody has used yet
    # `moved_at` is also since when it waits for a request or an answer: their deadlines are worked out of it. While the
    # client's descriptor is registered, there is a deadline.
    # The request; as long as `_lease` is held, or the answer is not wholly sent.
    _bare: bytes  # `raw` if it is the whole request, without a body, and good under `view`
    like: RequestHead  # its head; while `_shaped_head` is not None another one of its shape, see `head`
    _shaped_head: tuple[RequestShape, Values, int] | None  # what read it, and what it found
    payload: bytes  # what goes to the backend behind the head
    recv_bytes: int  # how much is read at once: after the size of the last request
    request_id: bytes
    upload_left: int  # still to come from the client
    _repeated: RepeatedRequest | None  # the head and what is made of it, if it is the same as the last one
    timeouts: PoolTimeouts
    _lease: Lease | None  # this record, as long as it holds a backend
    _connection: BackendConnection | None
    # The response.
    _status: int
    _reply_bytes: int
    _close_after: bool
    _reading: bool  # the client's descriptor is registered
    _too_late: Callable[[Any], None]  # what the deadline means in the present state: a function of this record

    def __init__(self, lanes: "Lanes", sock: socket.socket, view: ListenerView, facts: ClientFacts) -> None:
        super().__init__()
        self.lanes = lanes
        self.sock = sock
        self.fd = sock.fileno()
        self.view = view
        self.facts = facts
        self.deadline = self.queued_at = NEVER
        self.buffer = self.raw = self._bare = self.payload = self.unsent = self._out = b""
        self._repeated = self._read_under = None
        self._shaped = self._shaped_head = None
        self._lease = None
        self._connection = None
        self._pipe = None
        self._status = self.upload_left = 0
        self.recv_bytes = RECV_BYTES
        self._reading = self.has_risked = False
        self._too_late = idle_too_long

    def on_ready(self, mask: int) -> None:
        raise NotImplementedError

    def on_pipelined(self) -> None:
        raise NotImplementedError

    @property
    def head(self) -> RequestHead:
        """The request's own: made when it is first asked for."""
        if self._shaped_head is not None:
            shape, values, _ = self._shaped_head
            self._shaped_head = None
            self.like = shape.head(values)
        return self.like

    @property
    def idle_s(self) -> float:
        """How long it may be silent between two exchanges."""
        idle_s = self.view.settings.timeouts.idle_s
        return min(idle_s, LAST_REQUEST_S) if self.lanes.stopping else idle_s

    @property
    def is_idle(self) -> bool:
        """Between two exchanges, with nothing of the next one here."""
        return self._reading and self._lease is None and not self.buffer and not self._out

    def begin(self) -> None:
        """Wait for a request; `buffer` may hold one already."""
        reactor = self.lanes.reactor
        # What is left of the last exchange; the task lane may have had it.
        self.payload = self.unsent = self.request_id = b""
        self.upload_left = self._status = 0
        if not self._reading:
            self._reading = True
            reactor.register(self.fd, READ, self)
        self._too_late = idle_too_long
        self.moved_at = reactor.now
        reactor.arm(self, self.idle_s)
        if self.buffer:
            reactor.defer(self.on_pipelined)

    def forget_head(self) -> None:
        """Other limits hold now."""
        self._bare = b""
        self._read_under = None

    def on_deadline(self) -> None:
        self._too_late(self)

    def has_waited(self, timeout_s: float) -> bool:
        """So long since `moved_at`? If not, it is asked again when it has."""
        reactor = self.lanes.reactor
        due = self.moved_at + timeout_s
        if due > reactor.now:
            reactor.arm_at(self, due)
            return False
        return True

    # Letting go

    def leave(self) -> None:
        """Off the reactor: the connection goes to the task lane, or is closed."""
        reactor = self.lanes.reactor
        reactor.unregister(self.fd)
        reactor.disarm(self)
        self._reading = False
        self._too_late = _never

    def release(self) -> tuple[Lease, BackendConnection]:
        """Lease and backend connection, off the reactor, for the task lane, which looks whether it is overdue."""
        lease, connection = self._lease, self._connection
        assert lease is not None
        assert connection is not None
        self._lease = self._connection = connection.owner = None
        lease = self.lanes.router.hand_on(lease)
        self.overdue = False
        self.lanes.reactor.unregister(connection.fd)
        return lease, connection

    def close(self) -> None:
        """The client is done, or was silent for too long."""
        reactor = self.lanes.reactor
        reactor.forget(self.fd)
        reactor.disarm(self)
        self._reading = False
        self._too_late = _never
        self.sock.close()
        self.lanes.closed(self)

    def abort(self) -> None:
        """A mistake of ours: the reactor calls this for whoever made it."""
        self._let_backend_go(False)
        self.close()

    def _let_backend_go(self, reusable: bool) -> None:
        """The backend's part is over: the lease is released, the connection kept for others or closed."""
        connection, lease, lanes = self._connection, self._lease, self.lanes
        if lease is None:
            return
        self._connection = self._lease = None
        if self._pipe is not None:
            lanes.pipes.give_back(self._pipe)
            self._pipe = None
        if connection is not None:
            if reusable:
                lanes.reactor.handlers[connection.fd] = connection
                lanes.backends.keep(connection)
            else:
                lanes.reactor.forget(connection.fd)
                connection.close()
        lanes.router.finish(lease)

    # The ends of an exchange

    def _done(self) -> None:
        """The last byte of the answer is with the client."""
        lanes = self.lanes
        lanes.served += 1
        if lanes.context.access.is_on:
            self._record(None)
        if self._close_after:
            if self.buffer:
                lanes.linger(self)  # it said more than it may: a reset could swallow the answer
            else:
                self._end_and_close()
        else:
            self.begin()

    def _end_and_close(self) -> None:
        """The answer's last bytes may have waited for this: they go out with the end, and before a close that finds
        something unread, which is a reset."""
        try:  # noqa: SIM105 (suppress costs as much as the shutdown)
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # reset meanwhile
        self.close()

    def _client_speaks_early(self, data: bytes) -> None:
        """Its answer is owed: this is the next request, or the client is gone."""
        if not data:
            if self.view.settings.half_close == "serve" and not self.upload_left:
                self.lanes.reactor.unregister(self.fd)  # its end is seen again behind the answer
                self._reading = False
            else:
                self._client_gone()
            return
        self.buffer += data
        if len(self.buffer) >= READ_AHEAD_BYTES:
            self.lanes.reactor.unregister(self.fd)
            self._reading = False

    def _client_gone(self) -> None:
        """It has left while an answer was owed, or does not take it: the backend's work is abandoned."""
        self._let_backend_go(False)
        self.lanes.served += 1
        if not self._status:
            self._status = CLIENT_CLOSED
            self._reply_bytes = 0
        self._record("client_gone")
        self.close()

    def _cut_short(self, error: str) -> None:
        """A part of the answer is out, and no more will come: its length tells the client that it is a part."""
        if self._lease is not None:
            self.lanes.router.count(self._lease.backend.cell, Counter.FAILED)
        self._let_backend_go(False)
        self.lanes.served += 1
        reason = CUT_SHORT[error]
        self._record(error, reason)
        request_id, backend = self.request_id.decode("latin-1"), self.backend.id
        self.lanes.context.failures.tell(
            ExchangeFailed(request_id, backend.pool, str(backend), self._status, error, reason)
        )
        self.close()

    def _record(self, error: str | None, reason: str | None = None) -> None:
        access = self.lanes.context.access
        if not access.is_on:
            return
        reactor = self.lanes.reactor
        shaped = self._shaped_head
        if access.is_combined and (shaped is None or shaped[0].logs_alike):
            # The usual way: neither a record nor a head of its own is made (2.3 us of a request with 13 fields).
            head = self.like
            target = head.target if shaped is None else shaped[1][0]
            at = reactor.wall(self.started)
            access.note(at, self.facts.ip, head, target, status=self._status, size=self._reply_bytes)
            return
        head = self.head
        access.add(
            AccessRecord(
                reactor.wall(self.started),
                head,
                self._status,
                self.request_bytes - self.upload_left,
                self._reply_bytes,
                reactor.now - self.started,
                self.backend.id,
                self.facts.ip,
                self.request_id,
                error,
                reason,
            )
        )


def idle_too_long(record: ExpressRecord) -> None:
    if record.has_waited(record.idle_s) and is_silent(record.sock):  # what has been asked is answered
        record.close()


def _never(record: ExpressRecord) -> None:
    """The deadline of a record that is closed, or not the express lane's."""
