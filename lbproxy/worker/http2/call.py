"""A request of a stream to a backend that speaks HTTP/2, too: HEADERS, DATA and trailers pass without a task.

Most calls of gRPC are unary: the request is all here, and the answer comes as a whole, within one batch of the
reactor. Such an answer is passed on at once. One that goes on, and all that is not plain, is handed to a task with
everything that has come: it knows time limits, farewells and retries. Until then nothing has gone to the client.
"""

from lbproxy.wire.grpc import call_timeout_s
from lbproxy.wire.head import Refused, ResponseHead
from lbproxy.wire.http2.backend_heads import request_block
from lbproxy.wire.http2.errors import NoStreams
from lbproxy.wire.http2.hpack import Fields
from lbproxy.wire.http2.response import own_block, trailers_block
from lbproxy.wire.lines import bad_response
from lbproxy.worker.backends.http2_connection import SharedConnection
from lbproxy.worker.backends.http2_stream import BackendStream
from lbproxy.worker.backends.stream_owner import Loss
from lbproxy.worker.express import finish
from lbproxy.worker.express.phase import WAITING
from lbproxy.worker.handover import Begun, Handover, Sent
from lbproxy.worker.http2.answer_block import ID_BYTES, ID_FIELD, lines_of_ours
from lbproxy.worker.http2.entry import is_call
from lbproxy.worker.http2.express import ExpressStream
from lbproxy.worker.http2.read_head import ReadHead
from lbproxy.worker.io.reactor import NEVER
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.task.time_limits import SLACK_S

WHOLE_BYTES = 32 * 1024  # of an answer's body: a longer one need not be waited for
_PLACE_OF_ID = ID_FIELD + bytes(ID_BYTES)


class Call:
    """Owner of the backend's stream (backends/stream_owner.py)."""

    __slots__ = ("connection", "data", "due", "fields", "has_ended", "held_bytes", "id", "reused", "stream", "trailers")

    def __init__(self, stream: ExpressStream, connection: SharedConnection, due: float) -> None:
        self.stream: ExpressStream | None = stream  # None: it is over, or a task's
        self.connection = connection
        self.due = due  # clock reading: the head must be here
        self.reused = connection.has_served
        self.id = 0
        self.fields: Fields | None = None  # of the head; it may have none, which is malformed
        self.data = b""
        self.held_bytes = 0  # of the backend's window
        self.trailers: Fields = ()
        self.has_ended = False

    # Told by the connection

    def on_head(self, fields: Fields, end: bool) -> None:
        self.fields = fields
        self.has_ended = end
        if end:
            self._complete()
        elif fields and fields[0][1][:1] == b"1":
            self.resume("interim")
        elif self.stream is not None:
            self.stream.lanes.reactor.defer(self._look)

    def on_data(self, data: bytes, size: int, end: bool) -> None:
        self.data = self.data + data if self.data else data
        self.held_bytes += size
        self.has_ended = end
        if end:
            self._complete()
        elif len(self.data) > WHOLE_BYTES:
            self.resume("stream")

    def on_trailers(self, fields: Fields) -> None:
        self.trailers = fields
        self.has_ended = True
        self._complete()

    def on_writable(self) -> None:
        """What was put is short."""

    def on_lost(self, loss: Loss) -> None:
        self.resume("backend_ended", loss)

    def _look(self) -> None:
        """The batch that brought the head is over, and the answer is not whole."""
        if self.stream is not None:
            self.resume("stream")

    # The end

    def _complete(self) -> None:
        stream = self.stream
        if stream is None:
            return
        carrier = stream.carrier
        answers = carrier.lanes.stream_heads.answers
        try:
            known = answers.head(self.fields or ())
            trailers = answers.trailers(self.trailers) if self.trailers else b""
            _check_length(known.head, self.data, stream.sample.method)
        except Refused:
            self.resume("bad_response")
            return
        if known.head.event_stream:
            self.resume("stream")
            return
        own = lines_of_ours(stream, known.head, dated=known.is_dated)
        ours = ID_FIELD + own if len(own) == ID_BYTES else own_block(own, carrier.encoded_lines)
        stream.status = known.head.status
        stream.reply_bytes = len(self.data)
        self.leave()
        stream.lease = None
        stream.lanes.router.finish(stream)
        stream.put_whole(known.block + ours, self.data, trailers)

    def leave(self) -> None:
        """The backend's part is over, or not wanted any more."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.call = None
            self.connection.leave(self.id)

    def resume(self, why: str, loss: Loss | None = None) -> None:
        """A task goes on, with all that has come."""
        stream = self.stream
        if stream is None or stream.lease is None:
            return
        self.stream = stream.call = None
        backend = BackendStream.taken_over(self.connection, self.id, reused=self.reused)
        if self.fields is not None:
            backend.on_head(self.fields, self.has_ended and not self.held_bytes and not self.trailers)
        if self.held_bytes:
            backend.on_data(self.data, self.held_bytes, self.has_ended and not self.trailers)
        if self.trailers:
            backend.on_trailers(self.trailers)
        if loss is not None:
            backend.on_lost(loss)
        lease, stream.lease = stream.lanes.router.hand_on(stream.lease), None
        stream.overdue = False
        begun = Begun(lease, backend, stream.timeouts, respond_by=self.due if self.due != NEVER else None)
        finish.leave(stream)
        sent = Sent(begun, stream.head, stream.own, stream.body, stream.request_bytes, stream.started)
        stream.hand_over(Handover(why, b"", sent=sent))


def begin_call(stream: ExpressStream, lease: Lease) -> None:
    """Put the request on a connection that stands and has room; else a task makes one."""
    lanes = stream.lanes
    connection = lanes.context.shared.ready(lease.backend)
    if connection is not None and not connection.streams:
        connection.look()
    if connection is None or not connection.has_room:
        finish.give_up(stream, "http2")
        return
    read = stream.read
    due = lease.started + stream.timeouts.response_s
    if is_call(stream, read):
        if read.timeout_s < 0:
            timeout_s = call_timeout_s(stream.head)
            read.timeout_s = NEVER if timeout_s is None else timeout_s
        due = NEVER if read.timeout_s == NEVER else min(due, lease.started + read.timeout_s + SLACK_S)
    call = Call(stream, connection, due)
    body, trailers = stream.body, stream.trailers
    block = _block_of_request(stream, read)
    try:
        call.id = connection.begin_stream(call, block, end=not body and not trailers)
    except NoStreams:
        finish.give_up(stream, "http2")
        return
    stream.call = call
    stream.phase = WAITING
    lanes.reactor.arm_at(stream, due)
    if body:
        connection.put(call.id, body, end=not trailers)
    if trailers:
        connection.put_trailers(call.id, trailers_block(trailers, lanes.context.shared.encoded))


def _block_of_request(stream: ExpressStream, read: ReadHead) -> bytes:
    request_id = stream.request_id
    encoded = stream.lanes.context.shared.encoded
    scheme = b"https" if stream.backend.address.secure else b"http"
    if len(request_id) != ID_BYTES:
        return request_block(stream.head, stream.facts, request_id, encoded, scheme=scheme)
    if read.scheme != scheme:  # the first time
        read.scheme = scheme
        made = request_block(stream.head, stream.facts, bytes(ID_BYTES), encoded, scheme=scheme)
        read.before, _, read.behind = made.partition(_PLACE_OF_ID)
        read.before += ID_FIELD
    return b"".join((read.before, request_id, read.behind))


def _check_length(head: ResponseHead, data: bytes, method: bytes) -> None:
    """Raises Refused."""
    if method == b"HEAD" or head.status in (204, 304):
        if data:
            raise bad_response("a body where none may be")
    elif head.length is not None and head.length != len(data):
        raise bad_response("a body that is not as long as its Content-Length")
