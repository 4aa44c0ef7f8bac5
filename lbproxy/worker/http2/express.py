"""A stream in the express lane: a simple request of HTTP/2 whose backend speaks HTTP/1, served without a task.

Works as worker/express does for a connection of HTTP/1, with the same phases, and with its functions wherever the
client's side does not matter: claiming, sending, reading the answer, counting. This module has the client's side of
the way there, express_answer.py that of the way back. What is hard goes to a task, at the same two points: nothing
claimed yet, or the request sent. The record is used again for other streams, also of other connections: it is its
own lease and its own entry among the reactor's deadlines, and both are cheaper to keep than to make.

Hot. A head that was read before costs a comparison by identity (wire/http2/hpack.py), then what HTTP/1 costs.
"""

import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from lbproxy.model import ListenerView
from lbproxy.settings import EARLY_BODY_BYTES
from lbproxy.wire.body import chunk, last_chunk
from lbproxy.wire.head import Lines, Refused, RequestHead, read_request
from lbproxy.wire.head_cache import CachedRequestHead, HeadCache
from lbproxy.wire.head_template import HeadTemplates, Parts, RequestTemplate, Values
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.http2.connection import Http2Connection
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.errors import CANCEL, INTERNAL_ERROR
from lbproxy.wire.http2.hpack import Fields
from lbproxy.worker.express import finish, request
from lbproxy.worker.express.phase import AWAY, BODY
from lbproxy.worker.express.record import ExpressRecord, act, change, put_off
from lbproxy.worker.handover import Handover
from lbproxy.worker.http2 import express_answer
from lbproxy.worker.io.reactor import NEVER

KEPT_RECORDS = 256


class ReadHead:
    """The head of a request, as one connection has read it last: the same fields again mean the same."""

    __slots__ = ("cached", "ends", "fields", "head", "match", "raw", "view", "why")

    def __init__(self, fields: Fields, view: ListenerView, raw: bytes, *, ends: bool) -> None:
        self.fields = fields
        self.view = view  # whose limits it has passed
        self.raw = raw
        self.ends = ends  # no body follows
        self.why = ""  # it is for a task
        self.head: RequestHead
        self.match: tuple[RequestTemplate, Values, int] | None = None
        self.cached: CachedRequestHead | None = None


class StreamHeads:
    """What a worker remembers of heads of HTTP/2, and the records that are free. One for all connections."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.cache = HeadCache()
        self.templates = HeadTemplates(_template)
        self.free: list[ExpressStream] = []


def _template(one: Parts, two: Parts) -> RequestTemplate:
    template = RequestTemplate(one, two)
    template.sample.is_http2 = True
    return template


class Carrier(Protocol):
    """The connection of a stream."""

    lanes: Any
    wire: Http2Connection
    sock: socket.socket
    view: ListenerView
    facts: ClientFacts
    streams: dict[int, Any]
    read_head: ReadHead | None

    @property
    def encoded_lines(self) -> EncodedLines: ...
    def pending(self, stream_id: int) -> int: ...
    def flush(self) -> None: ...
    def plan_flush(self) -> None: ...
    def reset(self, stream_id: int, code: int) -> None: ...
    def credit(self, stream_id: int, size: int) -> None: ...
    def stream_is_over(self) -> None: ...
    def to_task(self, stream: "ExpressStream", handover: Handover) -> None: ...


class ExpressStream(ExpressRecord):
    """`number`: the stream's id."""

    __slots__ = ("body", "carrier", "gone", "has_ended", "number", "since", "trailers")

    carrier: Carrier
    number: int
    since: float
    gone: str  # why nothing more comes or goes
    has_ended: bool  # the request is here to its last byte
    body: bytes  # of the request, as far as it has come
    trailers: Sequence[bytes]

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier.lanes, carrier.sock, carrier.view, carrier.facts)
        self.fd = -1
        self.body = b""
        self.trailers = ()

    # The backend's descriptor is ready
    on_connected = request.on_connected
    on_reply = express_answer.on_reply
    on_body = express_answer.on_body
    # An answer that was read
    answer = express_answer.answer
    answer_chunked = express_answer.answer_chunked
    begin_answer = express_answer.begin_answer
    # Time, drains and ends
    on_deadline = finish.on_deadline
    cut = finish.cut
    abort = finish.abort
    # As its connection sees it
    rouse = express_answer.rouse
    # Actions that the table of phases names
    connect_refused = finish.connect_refused
    connect_too_slow = finish.connect_too_slow
    cut_short = finish.cut_short
    enter_buffered = finish.enter_buffered
    go_on = finish.go_on
    resume = finish.resume

    def __repr__(self) -> str:
        return f"<express stream {self.number}, {super().__repr__()[1:]}"

    # As its connection sees it

    @property
    def pending(self) -> int:
        return self.carrier.pending(self.number)

    def received(self, data: bytes, *, end: bool) -> None:
        """More of a short body."""
        self.body = self.body + data if self.body else data
        limit = self.view.settings.limits.body_bytes
        if len(self.body) >= EARLY_BODY_BYTES or (limit and len(self.body) > limit):
            self.has_ended = end
            finish.enter(self, b"", "refused" if limit and len(self.body) > limit else "slow_body")
        elif end:
            self.end(())
        else:
            put_off(self)

    def end(self, trailers: Sequence[bytes]) -> None:
        """The request is complete."""
        self.has_ended = True
        self.trailers = trailers
        since = self.entered_at
        body = self.body
        self.payload = chunk(body) + last_chunk(trailers) if self.sample.chunked else body
        self.request_bytes = len(body)
        request.forward(self)
        if self.lease is not None:
            self.started = since
            self.carrier.credit(self.number, len(body))

    def leave(self, why: str) -> None:
        """The client has left, or its connection."""
        self.gone = why
        act(self, self.phase.client_gone)

    # Ends

    def abandon(self) -> None:
        """The client has left, or does not take the answer."""
        if not self.gone:
            self.gone = "the client takes nothing"
            self.carrier.reset(self.number, CANCEL)
        finish.abandon(self)

    def close(self) -> None:
        """Nothing more comes of an answer: it must not look complete."""
        if not self.gone:
            self.carrier.reset(self.number, INTERNAL_ERROR)
        self.let_go()

    def hand_over(self, handover: Handover) -> None:
        sent = handover.sent
        if sent is not None:
            handover = replace(handover, sent=replace(sent, payload=self.body))
        carrier = self.carrier
        carrier.to_task(self, handover)
        self._free(carrier)

    def let_go(self) -> None:
        """The exchange is over."""
        carrier = self.carrier
        del carrier.streams[self.number]
        self._free(carrier)
        if not carrier.streams:
            carrier.stream_is_over()

    def _free(self, carrier: Carrier) -> None:
        """For another stream. Nothing of a connection is kept alive by it."""
        self.phase = AWAY
        self.deadline = NEVER
        self.payload = self.own = self.body = self.raw = self.unsent = self.buffer = b""
        self.cached = self.request_match = self.reply_match = None
        self.trailers = ()
        self.upload_left = self.status = 0
        del self.carrier, self.sock
        free = carrier.lanes.stream_heads.free
        if len(free) < KEPT_RECORDS:
            free.append(self)
        else:
            self.lanes.reactor.disarm(self)


def begin(carrier: Carrier, stream_id: int, read: ReadHead) -> None:
    """Serve a request whose head was read, and that is not for a task."""
    free = carrier.lanes.stream_heads.free
    stream: ExpressStream = free.pop() if free else ExpressStream(carrier)
    carrier.streams[stream_id] = stream
    stream.carrier = carrier
    stream.sock = carrier.sock
    stream.view = read.view
    stream.facts = carrier.facts
    stream.number = stream_id
    stream.gone = ""
    stream.has_ended = read.ends
    stream.request_bytes = 0
    stream.raw = read.raw
    stream.sample = read.head
    stream.request_match = read.match
    stream.cached = read.cached
    stream.since = stream.entered_at = carrier.lanes.reactor.now
    if read.ends:
        request.forward(stream)
    else:
        _wait_for_body(stream, read)


def _wait_for_body(stream: ExpressStream, read: ReadHead) -> None:
    head, limit = read.head, read.view.settings.limits.body_bytes
    length = head.length or 0
    pool = stream.lanes.router.route(read.view, head.host, head.target)
    if pool is None:
        finish.enter(stream, b"", "no_route")
    elif limit and length > limit:
        finish.enter(stream, b"", "refused")
    elif length >= EARLY_BODY_BYTES or pool.buffer_request_bytes != EARLY_BODY_BYTES:
        finish.enter(stream, b"", "buffer")
    else:
        change(stream, BODY)


def read_again(read: ReadHead, heads: StreamHeads, facts: ClientFacts) -> None:
    """The same fields have come a second time: from now on the head is used from the head cache."""
    if read.match is not None:
        template, values, _ = read.match
        read.head = template.head(values)
        read.match = None
    read.cached = heads.cache.request(read.raw, read.head, facts)
    read.head, read.raw = read.cached.head, read.cached.raw


def read_head(read: ReadHead, heads: StreamHeads) -> None:
    """Read `raw`; `why` says what makes it a task's."""
    limits = read.view.settings.limits
    match = heads.templates.read(read.raw)
    if match is not None and match[0].field_lines <= limits.headers:
        read.match = match
        read.head = match[0].sample
        if match[0].length(match[1]) != read.head.length:
            read.head, read.match = match[0].head(match[1]), None
        return
    try:
        read.head = head = read_request(read.raw, heads.lines, limits.headers)
    except Refused:
        read.why = "refused"
        return
    head.is_http2 = True
    if head.expects_continue or head.upgrades:
        read.why = "upgrade" if head.upgrades else "expect"
        return
    heads.templates.learn(read.raw)
