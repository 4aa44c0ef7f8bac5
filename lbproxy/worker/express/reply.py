"""The way back: read a backend's response and send it to the client. request.py is the way there.

Nothing here retries or writes an error page. A response that is not plain goes to the task lane as long as no byte of
it has gone to the client; after that the exchange is cut short.
"""

from collections.abc import Sequence

from lbproxy.wire.body import chunk, last_chunk, response_body
from lbproxy.wire.head import RESPONSE_HEAD_BYTES, Refused, ResponseHead, read_response, response_head_end
from lbproxy.wire.head_cache import ReadReply
from lbproxy.wire.headers import Framing, is_dated, response_to_client, sets_hsts
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.express.body import begin_body, send_last
from lbproxy.worker.express.finish import let_backend_go, resume
from lbproxy.worker.express.phase import WAITING
from lbproxy.worker.express.record import ExpressRecord, act
from lbproxy.worker.io.read_size import LARGE_RECV_BYTES, read_on, room_for_answer

LENGTH = Framing.LENGTH  # an attribute of an enum costs as much as three of these


def on_reply(record: ExpressRecord, connection: BackendConnection) -> None:
    try:
        data = connection.sock.recv(connection.recv_bytes)
    except BlockingIOError:
        return
    except OSError:
        data = b""
        connection.is_reset = True
    reply, request, lanes = connection.reply, record.sample, record.lanes
    if (
        reply is not None
        and len(data) == reply.size
        and data.startswith(reply.raw)
        and not connection.buffer
        and record.phase is WAITING  # the request is wholly sent
        and request.keep_alive
        and request.minor
        and request.method != b"HEAD"
        and record.added is None
    ):
        head, end, _ = reply.read
        before, behind = reply.usual
        out = b"".join((before, record.own, behind, data[end:]))
        record.connection = record.lease = None  # inlined let_backend_go(True)
        lanes.backends.keep(connection)
        lanes.router.finish(record)
        record.close_after = False
        record.status = head.status
        record.reply_bytes = len(data) - end
        send_last(record, out)
    else:
        consider_reply(record, connection, data)


def consider_reply(record: ExpressRecord, connection: BackendConnection, data: bytes) -> None:
    """Answer with a simple response; else wait for the rest of its head, or hand the exchange over."""
    if not data:
        act(record, record.phase.backend_gone)
        return
    if len(data) == connection.recv_bytes:
        data = read_on(connection, data)
    if connection.buffer:
        data = connection.buffer + data
        connection.buffer = b""
    if record.upload_left or record.unsent:
        resume(record, "early_answer", data)  # the client is still sending
        return
    reply = connection.reply
    read = reply.read if reply is not None and data.startswith(reply.raw) else read_reply(record, connection, data)
    if read is None:
        return
    head, end, length = read
    status, request = head.status, record.sample
    if status < 200 or head.event_stream:
        resume(record, "stream" if head.event_stream else "interim", data)
    elif request.method == b"HEAD" or status == 204 or status == 304:
        record.answer(head, Framing.NONE, b"", 0, clean=end == len(data))
    elif length is not None:
        have = len(data) - end
        if have == length:
            connection.recv_bytes = room_for_answer(len(data))
            record.answer(head, LENGTH, data[end:], have, clean=True)
        elif have > length:
            record.answer(head, LENGTH, data[end : end + length], length, clean=False)
        else:
            record.status = status
            record.response = head
            record.reply_bytes = have
            connection.recv_bytes = LARGE_RECV_BYTES
            record.begin_answer(head, data[end:], length - have)
    elif head.chunked and request.minor:
        read_chunked(record, head, data, end)
    else:
        resume(record, "chunked_reply" if head.chunked else "until_close", data)


def read_reply(record: ExpressRecord, connection: BackendConnection, data: bytes) -> ReadReply | None:
    """Read a head: its values, where it ends, the length of the body. None: it is not whole yet, or handed over."""
    lanes = record.lanes
    raw = connection.raw
    if raw and data.startswith(raw):
        reply = connection.reply = lanes.head_cache.reply(raw, lanes.lines)
        return reply.read
    connection.reply = None
    templates = lanes.response_templates(connection.backend.id.pool)
    match = record.reply_match = templates.read(data)
    if match is not None:
        template, values, end = match
        connection.raw = data[:end]
        return template.sample, end, template.length(values)
    end = data.find(b"\r\n\r\n") + 4
    try:
        if end < 4:
            response_head_end(data, 0)
            connection.buffer += data
            return None
        if end > RESPONSE_HEAD_BYTES:
            resume(record, "bad_response", data)
            return None
        raw = data[:end]
        head = read_response(raw, lanes.lines)
        connection.raw = raw
    except Refused:
        resume(record, "bad_response", data)
        return None
    templates.learn(raw)
    return head, end, head.length


def read_chunked(record: ExpressRecord, head: ResponseHead, data: bytes, end: int) -> None:
    """Answer with a complete chunked body; an incomplete one goes to the task lane as it was received."""
    body = response_body(head, record.sample.method)
    try:
        payload = body.feed(data[end:])
    except Refused:
        payload = b""
    if not body.done:
        resume(record, "chunked_reply", data)
        return
    record.answer_chunked(head, payload, body.trailers, clean=not body.rest)


def answer_chunked(
    record: ExpressRecord, head: ResponseHead, payload: bytes, trailers: Sequence[bytes], *, clean: bool
) -> None:
    """Frame the body anew."""
    framed = chunk(payload) + last_chunk(trailers if record.sample.wants_trailers else ())
    answer(record, head, Framing.CHUNKED, framed, len(payload), clean=clean)


def begin_answer(record: ExpressRecord, head: ResponseHead, start: bytes, left: int) -> None:
    """`start` is in hand of the body, and `left` bytes are still to come."""
    begin_body(record, for_client(record, head, LENGTH, start), left)


def answer(record: ExpressRecord, head: ResponseHead, framing: Framing, body: bytes, size: int, *, clean: bool) -> None:
    """Release the backend, then send the whole answer. `body` is framed, `size` is that of its payload."""
    out = for_client(record, head, framing, body)
    record.status = head.status
    record.reply_bytes = size
    let_backend_go(record, clean and head.keep_alive)
    send_last(record, out)


def for_client(record: ExpressRecord, head: ResponseHead, framing: Framing, body: bytes) -> bytes:
    """The head as the client gets it, and `body` behind it."""
    request = record.sample
    assert record.connection is not None
    keep, own = request.keep_alive, record.own
    if record.added is not None:
        keep = keep and not record.lanes.stopping
        if record.added and not sets_hsts(head):
            own += record.added
    record.close_after = not keep
    reply, match = record.connection.reply, record.reply_match
    if reply is not None:
        if not reply.is_dated:
            own += record.lanes.context.date()
        before, behind = reply.for_client(request, framing, keep)
        return b"".join((before, own, behind, body))
    if not (is_dated(head) if match is None else match[0].is_dated):
        own += record.lanes.context.date()
    if match is not None:
        return match[0].to_client(match[1], request, own, framing, keep) + body
    return response_to_client(head, request, own, framing, keep) + body
