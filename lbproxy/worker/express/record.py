"""The state of one client connection in the express lane: one record per connection, used again for every exchange.

Knows the phases (phase.py): `change()` makes descriptors and deadline what the row of a phase says. The functions over
a record stand in request.py (the way there), reply.py (the way back), body.py (long bodies) and finish.py (the ends);
client.py lists them all.
"""

import socket
from collections.abc import Callable
from typing import Any, Protocol

from lbproxy.model import ListenerView
from lbproxy.settings import PoolTimeouts
from lbproxy.wire.head import Lines, RequestHead, ResponseHead
from lbproxy.wire.head_cache import CachedRequestHead, HeadCache
from lbproxy.wire.head_template import HeadTemplates, RequestTemplate, ResponseTemplate, Values
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.backends.connections import BackendConnection, BackendConnections
from lbproxy.worker.context import Context
from lbproxy.worker.express.phase import AWAY, BODY, CLIENT_FULL, CONNECTING, IDLE, UPLOADING, Action, Phase
from lbproxy.worker.handover import EARLY_BODY_S, LAST_REQUEST_S, READ_AHEAD_BYTES, Handover
from lbproxy.worker.io.reactor import NEVER, READ, FunctionHandler, Reactor
from lbproxy.worker.io.read_size import RECV_BYTES
from lbproxy.worker.io.splice import Pipe, Pipes
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.leases.router import Router

BODY_BYTES = 64 * 1024  # read at once of a body


class Lanes(Protocol):
    """What the express lane asks of the worker's lanes."""

    context: Context
    reactor: Reactor
    router: Router
    backends: BackendConnections
    lines: Lines
    head_cache: HeadCache
    request_templates: HeadTemplates[RequestTemplate]
    pipes: Pipes
    off: bool
    stopping: bool
    going: bool  # it stops, or gives its connections away

    def response_templates(self, pool: str) -> HeadTemplates[ResponseTemplate]: ...
    def hand_over(self, record: Any, handover: Handover) -> None: ...
    def linger(self, record: Any) -> None: ...
    def offer(self, record: Any) -> None: ...
    def closed(self, record: Any) -> None: ...


class ExpressRecord(Lease):
    """The record is its own lease: one object less for each exchange. Only the task lane gets a lease of its own."""

    __slots__ = (
        "added",
        "body_left",
        "buffer",
        "cached",
        "client_events",
        "close_after",
        "connection",
        "deadline",
        "entered_at",
        "facts",
        "fd",
        "has_risked",
        "lanes",
        "lease",
        "own",
        "payload",
        "phase",
        "pipe",
        "queued_at",
        "raw",
        "read_under",
        "recv_bytes",
        "reply_bytes",
        "reply_match",
        "request_bytes",
        "request_match",
        "response",
        "sample",
        "sock",
        "status",
        "timeouts",
        "unflushed",
        "unsent",
        "upload_left",
        "view",
        "whole",
    )

    lanes: Lanes
    sock: socket.socket
    fd: int  # -1: a stream of HTTP/2 has none of its own
    view: ListenerView
    facts: ClientFacts
    phase: Phase
    entered_at: float  # when the phase began: clock reading
    deadline: float
    queued_at: float
    client_events: int  # for which the client's descriptor is registered; 0: it is not
    buffer: bytes  # received from the client and not used yet
    # The request, as long as `lease` is held or the answer is not wholly sent.
    raw: bytes  # its head, as received
    whole: bytes  # `raw` if the request has no body and was good under `view`; else empty
    read_under: ListenerView | None  # the limits that `raw` and its head passed; None: they are not of one request
    sample: RequestHead  # its head; while `request_match` is not None, the head of another request of the same template
    request_match: tuple[RequestTemplate, Values, int] | None  # the template that read the head, and the values in it
    cached: CachedRequestHead | None  # the remembered head, if this one is the same as the last one
    payload: bytes  # sent to the backend behind the head
    recv_bytes: int  # how much is read at once: after the size of the last request
    own: bytes  # the request's id, and behind it the lines that belong to this answer alone (response_to_client)
    request_bytes: int  # of the body, for the log: all of it, less `upload_left`
    upload_left: int  # still to come from the client
    unsent: bytes  # not taken by the backend yet
    has_risked: bool  # a request that may not be replayed has gone out: the next may use a kept connection
    timeouts: PoolTimeouts
    lease: Lease | None  # this record, as long as it holds a backend
    connection: BackendConnection | None
    # The response.
    status: int
    response: ResponseHead
    reply_match: tuple[ResponseTemplate, Values, int] | None  # the template that read its head, and the values in it
    reply_bytes: int
    body_left: int  # still to come from the backend
    pipe: Pipe | None  # for the rest of a large body
    unflushed: bytes  # not taken by the client yet
    close_after: bool
    # Lines that this listener adds to answers; b"": the worker stops; None: the usual answer will do.
    added: bytes | None

    # Set by the class in client.py.
    on_ready: Callable[[int], None]
    on_upload: Callable[[int], None]
    on_reply: Callable[[BackendConnection], None]
    on_pipelined: Callable[[], None]
    on_deadline: Callable[[], None]
    abort: Callable[[], None]
    answer: Callable[..., None]
    answer_chunked: Callable[..., None]
    begin_answer: Callable[[ResponseHead, bytes, int], None]
    close: Callable[[], None]
    hand_over: Callable[[Handover], None]
    share: Callable[[Lease], None]

    def __init__(
        self, lanes: Lanes, sock: socket.socket, view: ListenerView, facts: ClientFacts, early: bytes = b""
    ) -> None:
        """`early`: received already, of the first request."""
        super().__init__()
        self.lanes = lanes
        self.sock = sock
        self.fd = sock.fileno()
        self.view = view
        self.facts = facts
        self.phase = AWAY
        self.entered_at = lanes.reactor.now
        self.deadline = self.queued_at = NEVER
        self.buffer = early
        self.raw = self.whole = self.payload = self.unsent = self.unflushed = b""
        self.cached = self.read_under = None
        self.reply_match = self.request_match = None
        self.lease = None
        self.connection = None
        self.pipe = None
        self.status = self.upload_left = self.client_events = self.request_bytes = self.reply_bytes = 0
        self.recv_bytes = RECV_BYTES
        self.has_risked = False
        self.added = None

    def __repr__(self) -> str:
        lease = f"{self.lease.backend.id} ({self.lease.kind})" if self.lease is not None else "no lease"
        received, sent = self.request_bytes - self.upload_left, self.reply_bytes
        waiting = len(self.buffer), len(self.unsent), len(self.unflushed)
        return (
            f"<express connection {self.fd}, {self.phase.name}, {lease}, body bytes: {received} in, {sent} out, "
            f"buffered: {waiting[0]} received, {waiting[1]} for the backend, {waiting[2]} for the client>"
        )

    @property
    def head(self) -> RequestHead:
        """The request's own head: made when it is first asked for."""
        if self.request_match is not None:
            template, values, _ = self.request_match
            self.request_match = None
            self.sample = template.head(values)
        return self.sample

    @property
    def request_id(self) -> bytes:
        return self.own.partition(b"\r\n")[0]

    @property
    def is_idle(self) -> bool:
        """True between two exchanges, while nothing of the next one has been received."""
        return self.phase is IDLE and not self.buffer

    def forget_head(self) -> None:
        """Other limits hold now: the next head is read anew."""
        self.whole = b""
        self.read_under = None


def limit_s(record: ExpressRecord) -> float:
    """The limit of the present phase, from now on.

    A stopping worker lets no connection idle for longer than LAST_REQUEST_S. A body that is not complete EARLY_BODY_S
    after its first byte is the task lane's, which streams it.
    """
    phase = record.phase
    allowed_s = phase.limit_s(record)
    if phase is IDLE:
        return min(allowed_s, LAST_REQUEST_S) if record.lanes.stopping else allowed_s
    if phase is BODY:
        return min(allowed_s, record.entered_at + EARLY_BODY_S - record.lanes.reactor.now)
    return allowed_s


def change(record: ExpressRecord, phase: Phase) -> None:
    """Enter `phase`: register both descriptors and arm the deadline as its row says.

    Only what differs from the phase before costs a system call. The usual way of a small exchange (forward() and
    send_last()) sets `phase` and `deadline` itself, because nothing else changes there.
    """
    before, record.phase = record.phase, phase
    reactor = record.lanes.reactor
    record.entered_at = record.moved_at = reactor.now  # a transfer changes its phase when bytes have moved
    events = phase.client
    if record.fd < 0 or (events == READ and _is_ahead(record)):
        events = 0
    if not events:
        if record.client_events:
            reactor.unregister(record.fd)
    elif not record.client_events:
        reactor.register(record.fd, events, _client_handler(record, phase))
    else:
        if events != record.client_events:
            reactor.modify(record.fd, events)
        reactor.handle(record.fd, _client_handler(record, phase))
    record.client_events = events
    connection = record.connection
    if connection is not None:
        _watch_backend(record, connection, before)
    if phase.limit:
        reactor.arm(record, limit_s(record))


def put_off(record: ExpressRecord) -> None:
    """Bytes have moved: the limit of the phase begins anew, and a drain is patient."""
    reactor = record.lanes.reactor
    record.moved_at = reactor.now
    reactor.arm(record, limit_s(record))


def _is_ahead(record: ExpressRecord) -> bool:
    """True while more of the client's bytes are of no use."""
    if record.lease is None:
        return False
    return len(record.buffer) >= READ_AHEAD_BYTES or (record.phase is CONNECTING and record.upload_left > 0)


def _client_handler(record: ExpressRecord, phase: Phase) -> Any:
    name = phase.on_client
    if phase is UPLOADING and record.pipe is not None:
        name = "on_upload"
    return record if name == "on_ready" else FunctionHandler(getattr(record, name))


def _watch_backend(record: ExpressRecord, connection: BackendConnection, before: Phase) -> None:
    phase, reactor, fd = record.phase, record.lanes.reactor, connection.fd
    events, name = phase.backend, phase.on_backend
    if phase is CLIENT_FULL and record.pipe is None and record.body_left + len(record.unflushed) <= BODY_BYTES:
        events, name = READ, "on_body"  # a slow client holds a connection, not a backend
    if not events:
        reactor.unregister(fd)
        return
    handler = connection if name == "on_ready" else FunctionHandler(getattr(record, name))
    if not reactor.has(fd):
        reactor.register_backend(fd, events, handler)
        return
    if events != (before.backend or READ):  # a registered connection of a phase without one is a kept connection
        reactor.modify(fd, events)
    reactor.handle(fd, handler)


def act(record: ExpressRecord, action: Action, *more: object) -> None:
    """Carry out what the table says. `more`: what only the event knows."""
    method = getattr(record, action.method)
    if action.argument:
        method(action.argument, *more)
    else:
        method(*more)
