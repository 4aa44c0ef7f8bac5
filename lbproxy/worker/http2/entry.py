"""Where a stream enters the express lane: a record for it, and the wait for a short body.

Hot. A record that is free is taken rather than a new one: it has its place among the reactor's deadlines.
"""

from functools import partial

from lbproxy.settings import EARLY_BODY_BYTES
from lbproxy.wire.grpc import is_grpc
from lbproxy.worker.express import finish, request
from lbproxy.worker.express.phase import BODY
from lbproxy.worker.express.record import change
from lbproxy.worker.http2.express import SHORT_BODY_BYTES, Carrier, ExpressStream
from lbproxy.worker.http2.read_head import ReadHead
from lbproxy.worker.io.reactor import LOOK_S, NEVER


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
    stream.has_risked = False  # a stream cannot end its connection, as a POST that meets an end would do in HTTP/1
    stream.read = read
    stream.raw = read.raw
    stream.sample = read.head
    stream.request_match = read.match
    stream.cached = read.cached
    reactor = carrier.lanes.reactor
    stream.since = stream.entered_at = reactor.now
    if stream.queued_at == NEVER:
        reactor.arm(stream, LOOK_S)  # else a deadline of AT_LOOK is not looked at
    if read.ends:
        request.forward(stream)
    else:
        _wait_for_body(stream, read)


def _wait_for_body(stream: ExpressStream, read: ReadHead) -> None:
    head, limit = read.head, read.view.settings.limits.body_bytes
    length = head.length or 0
    target = head.target if read.match is None else read.match[1][0]
    pool = stream.lanes.router.route(read.view, head.host, target)
    if pool is None:
        finish.enter(stream, b"", "no_route")
    elif limit and length > limit:
        finish.enter(stream, b"", "refused")
    elif length < SHORT_BODY_BYTES and is_call(stream, read):
        change(stream, BODY)
        stream.lanes.reactor.defer(partial(_look, stream, stream.carrier, stream.number))
    elif length >= SHORT_BODY_BYTES or pool.buffer_request_bytes != EARLY_BODY_BYTES:
        finish.enter(stream, b"", "buffer")
    else:
        change(stream, BODY)


def is_call(stream: ExpressStream, read: ReadHead) -> bool:
    """Whether the request is a call of gRPC: looked for once."""
    if read.is_call is None:
        read.is_call = is_grpc(stream.head)
    return read.is_call


def _look(stream: ExpressStream, carrier: Carrier, stream_id: int) -> None:
    """The batch that brought the head of a call is over. Where its only message has not come with it, more may follow,
    and the backend may have something to say before: it is not waited for."""
    if carrier.streams.get(stream_id) is stream and stream.phase is BODY:
        finish.enter(stream, b"", "call")
