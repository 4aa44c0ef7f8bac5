"""A stream in the express lane: a simple request of HTTP/2 whose backend speaks HTTP/1, served without a task.

Works as worker/express does for a connection of HTTP/1, with the same phases, and with its functions wherever the
client's side does not matter: claiming, sending, reading the answer, counting. What is hard goes to a task, at the
same two points: nothing claimed yet, or the request sent. The record is used again for other streams, also of other
connections: it is its own lease and its own entry among the reactor's deadlines, and both are cheaper to keep than to
make. A body of known length streams on the reactor: it is read as fast as the client's windows and socket let it go.

Hot. A head that was read before costs a comparison by identity (read_head.py), then what HTTP/1 costs.
"""

import socket
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from lbproxy.model import LeaseKind, ListenerView
from lbproxy.settings import EARLY_BODY_BYTES
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S
from lbproxy.wire.body import chunk, last_chunk
from lbproxy.wire.head import ResponseHead
from lbproxy.wire.headers import ClientFacts, Framing
from lbproxy.wire.http2.connection import Http2Connection
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.errors import CANCEL, INTERNAL_ERROR
from lbproxy.wire.http2.response import trailers_block
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.express import finish, request
from lbproxy.worker.express.finish import let_backend_go, log, tally
from lbproxy.worker.express.phase import AWAY, CLIENT_FULL, DOWNLOADING, WAITING
from lbproxy.worker.express.record import ExpressRecord, act, change, put_off
from lbproxy.worker.express.reply import consider_reply
from lbproxy.worker.handover import Handover
from lbproxy.worker.http2.answer_block import ID_BYTES, ID_FIELD, block_of
from lbproxy.worker.http2.descriptor import LEAST_READ_BYTES
from lbproxy.worker.http2.read_head import ReadHead
from lbproxy.worker.io.reactor import NEVER
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.tally import FIRST_BOUND_S, RESPONSE_BYTES, TOOK_S

KEPT_RECORDS = 256
SHORT_BODY_BYTES = EARLY_BODY_BYTES // 2  # a longer one would close the window of its stream before it is used
READ_AGAIN_BYTES = 32 * 1024  # a body goes on when less than this waits for the client
FLUSH_BYTES = 16 * 1024  # so much does not wait for the end of the batch


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
    @property
    def read_bytes(self) -> int: ...
    @property
    def is_full(self) -> bool: ...
    def pending(self, stream_id: int) -> int: ...
    def flush(self) -> None: ...
    def plan_flush(self) -> None: ...
    def reset(self, stream_id: int, code: int) -> None: ...
    def credit(self, stream_id: int, size: int) -> None: ...
    def stream_is_over(self) -> None: ...
    def to_task(self, stream: "ExpressStream", handover: Handover) -> None: ...
    def begin_call(self, stream: "ExpressStream", lease: Lease) -> None: ...


class Call(Protocol):
    """The stream to a backend that speaks HTTP/2, too: call.py."""

    due: float

    def leave(self) -> None: ...
    def resume(self, why: str) -> None: ...


class ExpressStream(ExpressRecord):
    """`number`: the stream's id."""

    __slots__ = ("body", "call", "carrier", "gone", "has_ended", "number", "read", "since", "trailers", "waits")

    call: Call | None  # that is not over
    carrier: Carrier
    read: ReadHead
    number: int
    since: float
    gone: str  # why nothing more comes or goes
    has_ended: bool  # the request is here to its last byte
    body: bytes  # of the request, as far as it has come
    trailers: Sequence[bytes]
    waits: int  # bytes of it that the client had not taken when bytes of it were last put or taken

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier.lanes, carrier.sock, carrier.view, carrier.facts)
        self.fd = -1
        self.body = b""
        self.trailers = ()
        self.call = None

    # The backend's descriptor is ready
    on_connected = request.on_connected
    # Time, drains and ends
    cut = finish.cut
    abort = finish.abort
    # Actions that the table of phases names
    connect_refused = finish.connect_refused
    connect_too_slow = finish.connect_too_slow
    cut_short = finish.cut_short
    enter_buffered = finish.enter_buffered
    go_on = finish.go_on

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
        if len(self.body) >= SHORT_BODY_BYTES or (limit and len(self.body) > limit):
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

    # To the backend, and from it

    def share(self, lease: Lease) -> None:
        """The backend speaks HTTP/2."""
        self.carrier.begin_call(self, lease)

    def on_reply(self, connection: BackendConnection) -> None:
        try:
            data = connection.sock.recv(LEAST_READ_BYTES if self.carrier.is_full else connection.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            connection.is_reset = True
        reply, lanes, own = connection.reply, self.lanes, self.own
        if (
            reply is not None
            and len(data) == reply.size
            and data.startswith(reply.raw)
            and not connection.buffer
            and self.phase is WAITING  # the request is wholly sent
            and reply.block
            and len(own) == ID_BYTES
            and self.sample.method != b"HEAD"
            and self.view.settings.hsts_s is None
        ):
            head, end, _ = reply.read
            self.connection = self.lease = None  # inlined let_backend_go(True)
            lanes.backends.keep(connection)
            lanes.router.finish(self)
            self.status = head.status
            self.reply_bytes = len(data) - end
            self.put_whole(b"".join((reply.block, ID_FIELD, own)), data[end:])
        else:
            consider_reply(self, connection, data)

    def answer(
        self, head: ResponseHead, framing: Framing, body: bytes, size: int, *, clean: bool, trailers: bytes = b""
    ) -> None:
        """Release the backend, then send the whole answer. `trailers`: a block, if there are any."""
        block = block_of(self, head, self.carrier.encoded_lines)
        self.status = head.status
        self.reply_bytes = size
        let_backend_go(self, clean and head.keep_alive)
        self.put_whole(block, body, trailers)

    def answer_chunked(self, head: ResponseHead, payload: bytes, trailers: Sequence[bytes], *, clean: bool) -> None:
        behind = trailers_block(trailers, self.carrier.encoded_lines)
        self.answer(head, Framing.CHUNKED, payload, len(payload), clean=clean, trailers=behind)

    def put_whole(self, block: bytes, body: bytes, trailers: bytes = b"") -> None:
        """The whole answer. `trailers`: a block, if there are any."""
        wire = self.carrier.wire
        known = wire.streams.get(self.number)
        if known is None:
            is_out = True
        elif trailers:
            output = wire.output
            output.head(known, block, False)
            if body:
                output.data(known, body, False)
            output.head(known, trailers, True)
            is_out = not known.queue
        else:
            is_out = wire.output.answer(known, block, body)
        self._after_last(is_out=is_out)

    def _after_last(self, *, is_out: bool) -> None:
        """The last byte of the answer is put. The backend's part is over."""
        self.carrier.plan_flush()
        if is_out:
            self._done()
        else:
            self.waits = self.carrier.pending(self.number)
            change(self, CLIENT_FULL)

    def _done(self) -> None:
        """The windows have let the last byte go."""
        lanes = self.lanes
        if self.request_bytes:
            tally(self)
        else:  # inlined tally(), as in express/body.py, send_last
            took_s = lanes.reactor.now - self.started
            try:
                series = self.leases.methods[self.sample.method][self.status]
            except KeyError:
                tally(self)
            else:
                series[0 if took_s <= FIRST_BOUND_S else bisect_left(DURATION_BOUNDS_S, took_s)] += 1
                series[TOOK_S] += took_s
                series[RESPONSE_BYTES] += self.reply_bytes
        if lanes.context.access.is_on:
            log(self, None)
        self.let_go()

    # A long body

    def begin_answer(self, head: ResponseHead, start: bytes, left: int) -> None:
        """`start` is in hand of the body, and `left` bytes are still to come."""
        assert self.lease is not None
        self.body_left = left
        self.lanes.router.change_kind(self.lease, LeaseKind.TRANSFER)
        wire = self.carrier.wire
        wire.send_head(self.number, block_of(self, head, self.carrier.encoded_lines))
        change(self, DOWNLOADING)
        self._pass_on(start, end=False)

    def on_body(self, mask: int) -> None:
        connection = self.connection
        if connection is None or self.lease is None:
            return
        carrier = self.carrier
        if carrier.is_full and carrier.pending(self.number):
            if self.phase is not CLIENT_FULL:
                self.waits = carrier.pending(self.number)
                change(self, CLIENT_FULL)
            self.lanes.reactor.unregister(connection.fd)  # a short rest would be read all the same
            return
        try:
            data = connection.sock.recv(carrier.read_bytes)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            act(self, self.phase.backend_gone)
            return
        left = self.body_left - len(data)
        if left < 0:
            data = data[:left]  # bytes behind the body are dropped
        self.body_left = left
        self.reply_bytes += len(data)
        if left <= 0:
            let_backend_go(self, left == 0 and self.response.keep_alive)
        self._pass_on(data, end=left <= 0)

    def _pass_on(self, data: bytes, *, end: bool) -> None:
        """Send a part of a body. If the client does not take all of it, the backend is not read until it does."""
        carrier, number = self.carrier, self.number
        if data or end:  # the body may not have begun
            carrier.wire.send_data(number, data, end=end)
        if len(data) >= FLUSH_BYTES:
            carrier.flush()
            if carrier.streams.get(number) is not self:
                return  # that was the end, of the answer or of the connection
        else:
            carrier.plan_flush()
        waits = self.waits = carrier.pending(number)
        if end:
            if not waits:
                self._done()
            elif self.phase is not CLIENT_FULL:
                change(self, CLIENT_FULL)
        elif self.phase is CLIENT_FULL:
            self.moved_at = self.lanes.reactor.now
        elif waits >= READ_AGAIN_BYTES or (waits and carrier.is_full):
            change(self, CLIENT_FULL)
        else:
            put_off(self)

    def rouse(self) -> None:
        """Bytes of the stream have left, or the socket takes more."""
        if self.phase is not CLIENT_FULL:
            return
        waits = self.carrier.pending(self.number)
        if self.connection is None and not waits:
            self._done()
        elif self.connection is not None and waits < READ_AGAIN_BYTES:
            change(self, DOWNLOADING)
        elif waits < self.waits:  # what other streams have sent does not put the limit of this one off
            self.waits = waits
            put_off(self)

    # Time, and ends

    def on_deadline(self) -> None:
        call = self.call
        if call is None:
            finish.on_deadline(self)
        elif self.lanes.reactor.now >= call.due:
            call.resume("slow_reply")
        else:
            self.lanes.reactor.arm_at(self, call.due)

    def resume(self, why: str) -> None:
        if self.call is not None:
            self.call.resume(why)
        else:
            finish.resume(self, why)

    def abandon(self) -> None:
        """The client has left, or does not take the answer."""
        if not self.gone:
            self.gone = "the client takes nothing"
            self.carrier.reset(self.number, CANCEL)
        if self.call is not None:
            self.call.leave()
        finish.abandon(self)

    def close(self) -> None:
        """Nothing more comes of an answer: it must not look complete."""
        if self.call is not None:
            self.call.leave()
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
        del self.carrier, self.sock, self.read
        free = carrier.lanes.stream_heads.free
        if len(free) < KEPT_RECORDS:
            free.append(self)
        else:
            self.lanes.reactor.disarm(self)
