"""The way back of a stream in the express lane: the backend's answer as HEADERS and DATA (express.py is the way there).

A body of known length streams on the reactor: it is read as fast as the windows and the socket of the client let it
go, at most one read ahead of them.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lbproxy.model import LeaseKind
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S
from lbproxy.wire.head import ResponseHead
from lbproxy.wire.headers import Framing, hsts_line, is_dated, sets_hsts
from lbproxy.wire.http2.answer_template import AnswerTemplate
from lbproxy.wire.http2.encoder import fresh_field
from lbproxy.wire.http2.response import fixed_block, own_block, trailers_block
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.express.finish import let_backend_go, log, tally
from lbproxy.worker.express.phase import CLIENT_FULL, DOWNLOADING, WAITING
from lbproxy.worker.express.record import BODY_BYTES, act, change, put_off
from lbproxy.worker.express.reply import consider_reply
from lbproxy.worker.tally import FIRST_BOUND_S, RESPONSE_BYTES, TOOK_S

if TYPE_CHECKING:
    from lbproxy.worker.http2.express import ExpressStream

READ_AGAIN_BYTES = 32 * 1024  # a body goes on when less than this waits for the client
FLUSH_BYTES = 16 * 1024  # so much does not wait for the end of the batch
ID_BYTES = 32  # of an id that is ours
_ID_FIELD = fresh_field(b"x-request-id", bytes(ID_BYTES))[:-ID_BYTES]


def on_reply(stream: "ExpressStream", connection: BackendConnection) -> None:
    try:
        data = connection.sock.recv(connection.recv_bytes)
    except BlockingIOError:
        return
    except OSError:
        data = b""
        connection.is_reset = True
    reply, lanes, own = connection.reply, stream.lanes, stream.own
    if (
        reply is not None
        and len(data) == reply.size
        and data.startswith(reply.raw)
        and not connection.buffer
        and stream.phase is WAITING  # the request is wholly sent
        and reply.block
        and len(own) == ID_BYTES
        and stream.sample.method != b"HEAD"
        and stream.view.settings.hsts_s is None
    ):
        head, end, _ = reply.read
        stream.connection = stream.lease = None  # inlined let_backend_go(True)
        lanes.backends.keep(connection)
        lanes.router.finish(stream)
        stream.status = head.status
        stream.reply_bytes = len(data) - end
        put_answer(stream, b"".join((reply.block, _ID_FIELD, own)), data[end:])
    else:
        consider_reply(stream, connection, data)


def block_of(stream: "ExpressStream", head: ResponseHead) -> bytes:
    """The header block of the answer. The backend's connection is still held."""
    assert stream.connection is not None
    encoded, own = stream.carrier.encoded_lines, stream.own
    hsts_s = stream.view.settings.hsts_s
    if hsts_s is not None and not sets_hsts(head):
        own += hsts_line(hsts_s)
    reply, match = stream.connection.reply, stream.reply_match
    if reply is not None:
        if not reply.is_dated:
            own += stream.lanes.context.date()
        if not reply.block:
            reply.block = fixed_block(head, encoded)
        return reply.block + own_block(own, encoded)
    if not (is_dated(head) if match is None else match[0].is_dated):
        own += stream.lanes.context.date()
    if match is None:
        return fixed_block(head, encoded) + own_block(own, encoded)
    template = match[0]
    if not isinstance(template.http2, AnswerTemplate):
        template.http2 = AnswerTemplate(template, encoded)
    return template.http2.block(match[1]) + own_block(own, encoded)


def answer(
    stream: "ExpressStream", head: ResponseHead, framing: Framing, body: bytes, size: int, *, clean: bool
) -> None:
    """Release the backend, then send the whole answer."""
    block = block_of(stream, head)
    stream.status = head.status
    stream.reply_bytes = size
    let_backend_go(stream, clean and head.keep_alive)
    put_answer(stream, block, body)


def answer_chunked(
    stream: "ExpressStream", head: ResponseHead, payload: bytes, trailers: Sequence[bytes], *, clean: bool
) -> None:
    block = block_of(stream, head)
    stream.status = head.status
    stream.reply_bytes = len(payload)
    let_backend_go(stream, clean and head.keep_alive)
    if not trailers:
        put_answer(stream, block, payload)
        return
    wire, number = stream.carrier.wire, stream.number
    wire.send_head(number, block)
    wire.send_data(number, payload)
    wire.send_head(number, trailers_block(trailers, stream.carrier.encoded_lines), end=True)
    after_last(stream, is_out=not wire.pending(number))


def put_answer(stream: "ExpressStream", block: bytes, body: bytes) -> None:
    wire = stream.carrier.wire
    known = wire.streams.get(stream.number)
    after_last(stream, is_out=known is None or wire.output.answer(known, block, body))


def after_last(stream: "ExpressStream", *, is_out: bool) -> None:
    """The last byte of the answer is put. The backend's part is over."""
    stream.carrier.plan_flush()
    if is_out:
        done(stream)
    else:
        change(stream, CLIENT_FULL)


def done(stream: "ExpressStream") -> None:
    """The windows have let the last byte go."""
    lanes = stream.lanes
    if stream.request_bytes:
        tally(stream)
    else:  # inlined tally(), as in express/body.py, send_last
        took_s = lanes.reactor.now - stream.started
        try:
            series = stream.leases.methods[stream.sample.method][stream.status]
        except KeyError:
            tally(stream)
        else:
            series[0 if took_s <= FIRST_BOUND_S else bisect_left(DURATION_BOUNDS_S, took_s)] += 1
            series[TOOK_S] += took_s
            series[RESPONSE_BYTES] += stream.reply_bytes
    if lanes.context.access.is_on:
        log(stream, None)
    stream.let_go()


# A long body


def begin_answer(stream: "ExpressStream", head: ResponseHead, start: bytes, left: int) -> None:
    """`start` is in hand of the body, and `left` bytes are still to come."""
    assert stream.lease is not None
    stream.body_left = left
    stream.lanes.router.change_kind(stream.lease, LeaseKind.TRANSFER)
    wire = stream.carrier.wire
    wire.send_head(stream.number, block_of(stream, head))
    change(stream, DOWNLOADING)
    _pass_on(stream, start, end=False)


def on_body(stream: "ExpressStream", mask: int) -> None:
    connection = stream.connection
    if connection is None or stream.lease is None:
        return
    try:
        data = connection.sock.recv(BODY_BYTES)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    if not data:
        act(stream, stream.phase.backend_gone)
        return
    left = stream.body_left - len(data)
    if left < 0:
        data = data[:left]  # bytes behind the body are dropped
    stream.body_left = left
    stream.reply_bytes += len(data)
    if left <= 0:
        let_backend_go(stream, left == 0 and stream.response.keep_alive)
    _pass_on(stream, data, end=left <= 0)


def _pass_on(stream: "ExpressStream", data: bytes, *, end: bool) -> None:
    """Send a part of a body. If the client does not take all of it, the backend is not read until it does."""
    carrier, number = stream.carrier, stream.number
    carrier.wire.send_data(number, data, end=end)
    if len(data) >= FLUSH_BYTES:
        carrier.flush()
        if stream.gone:  # that has met the end of the connection
            return
    else:
        carrier.plan_flush()
    waits = carrier.pending(number)
    if end:
        if not waits:
            done(stream)
        elif stream.phase is not CLIENT_FULL:
            change(stream, CLIENT_FULL)
    elif stream.phase is CLIENT_FULL:
        stream.moved_at = stream.lanes.reactor.now
    elif waits >= READ_AGAIN_BYTES:
        change(stream, CLIENT_FULL)
    else:
        put_off(stream)


def rouse(stream: "ExpressStream") -> None:
    """Bytes of the stream have left, or the socket takes more."""
    if stream.phase is not CLIENT_FULL:
        return
    waits = stream.carrier.pending(stream.number)
    if stream.connection is None and not waits:
        done(stream)
    elif stream.connection is not None and waits < READ_AGAIN_BYTES:
        change(stream, DOWNLOADING)
    else:
        put_off(stream)
