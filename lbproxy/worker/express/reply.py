"""The express lane's way back: the response of a backend, to the client. See request.py for the way there.

Nothing here retries or writes an error page. What is not plain goes to the task lane, as long as no byte of the
response has gone to the client; after that it is cut.
"""

from lbproxy.wire.body import chunk, last_chunk, response_body
from lbproxy.wire.head import RESPONSE_HEAD_BYTES, Refused, ResponseHead, read_response, response_head_end
from lbproxy.wire.head_cache import ReadReply
from lbproxy.wire.headers import Framing, is_dated, response_to_client
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.express.body import BODY_BYTES, BodySide
from lbproxy.worker.io.read_size import read_on, room_for

LENGTH = Framing.LENGTH  # an attribute of an enum costs as much as three of these


class ReplySide(BodySide):
    __slots__ = ()

    def on_reply(self, connection: BackendConnection) -> None:
        try:
            data = connection.sock.recv(connection.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        reply, request, lanes = connection.reply, self.like, self.lanes
        if (
            reply is not None
            and len(data) == reply.size
            and data.startswith(reply.raw)
            and not connection.buffer
            and self._too_late is reply_too_slow  # the request is wholly sent
            and request.keep_alive
            and request.minor
            and request.method != b"HEAD"
            and not lanes.stopping
        ):
            head, end, _ = reply.read
            before, behind = reply.usual
            out = b"".join((before, self.request_id, behind, data[end:]))
            self._connection = self._lease = None  # as _let_backend_go(True)
            lanes.backends.keep(connection)
            lanes.router.finish(self)
            self._close_after = False
            self._status = head.status
            self._reply_bytes = len(data) - end
            self._send_last(out)
        else:
            self._consider_reply(connection, data)

    def _consider_reply(self, connection: BackendConnection, data: bytes) -> None:
        """Is this the head of a simple response, and how much of it? Else it is handed over, or waited for the rest."""
        if not data:
            self._resume("backend_ended")
            return
        if len(data) == connection.recv_bytes:
            data = read_on(connection, data)
        if connection.buffer:
            data = connection.buffer + data
            connection.buffer = b""
        if self.upload_left or self.unsent:
            self._resume("early_answer", data)  # the client is still sending
            return
        reply = connection.reply
        read = reply.read if reply is not None and data.startswith(reply.raw) else self._read_reply(connection, data)
        if read is None:
            return
        head, end, length = read
        status, request = head.status, self.like
        if status < 200 or head.event_stream:
            self._resume("stream" if head.event_stream else "interim", data)
        elif request.method == b"HEAD" or status == 204 or status == 304:
            self._answer(head, Framing.NONE, b"", 0, end == len(data))
        elif length is not None:
            have = len(data) - end
            if have == length:
                connection.recv_bytes = room_for(len(data))
                self._answer(head, LENGTH, data[end:], have, True)
            elif have > length:
                self._answer(head, LENGTH, data[end : end + length], length, False)
            else:
                self._status = status
                self._from_head = head
                self._reply_bytes = have
                connection.recv_bytes = BODY_BYTES
                self._begin_body(self._for_client(head, LENGTH, data[end:]), length - have)
        elif head.chunked and request.minor:
            self._answer_chunked(head, data, end)
        else:
            self._resume("chunked_reply" if head.chunked else "until_close", data)

    def _read_reply(self, connection: BackendConnection, data: bytes) -> ReadReply | None:
        """What the head says, where it ends, the length of the body. None: it is no whole head, or handed over."""
        lanes = self.lanes
        raw = connection.raw
        if raw and data.startswith(raw):
            reply = connection.reply = lanes.repeats.reply(raw, lanes.lines)
            return reply.read
        connection.reply = None
        shapes = lanes.reply_shapes(connection.backend.id.pool)
        shaped = self._shaped = shapes.read(data)
        if shaped is not None:
            shape, values, end = shaped
            connection.raw = data[:end]
            return shape.like, end, shape.length(values)
        end = data.find(b"\r\n\r\n") + 4
        try:
            if end < 4:
                response_head_end(data, 0)
                connection.buffer += data
                return None
            if end > RESPONSE_HEAD_BYTES:
                self._resume("bad_response", data)
                return None
            raw = connection.raw = data[:end]
            head = read_response(raw, lanes.lines)
        except Refused:
            self._resume("bad_response", data)
            return None
        shapes.learn(raw)
        return head, end, head.length

    def _answer_chunked(self, head: ResponseHead, data: bytes, end: int) -> None:
        """Chunks that are all here are framed anew; what is not complete goes to the task lane as it came."""
        body = response_body(head, self.like.method)
        try:
            payload = body.feed(data[end:])
        except Refused:
            payload = b""
        if not body.done:
            self._resume("chunked_reply", data)
            return
        trailers = body.trailers if self.like.wants_trailers else ()
        framed = chunk(payload) + last_chunk(trailers)
        self._answer(head, Framing.CHUNKED, framed, len(payload), not body.rest)

    def _answer(self, head: ResponseHead, framing: Framing, body: bytes, size: int, clean: bool) -> None:
        """The whole answer is in hand, framed; `size` is that of its payload. Let go of the backend, then send."""
        out = self._for_client(head, framing, body)
        self._status = head.status
        self._reply_bytes = size
        self._let_backend_go(clean and head.keep_alive)
        self._send_last(out)

    def _for_client(self, head: ResponseHead, framing: Framing, body: bytes) -> bytes:
        """The head as the client gets it, and `body` behind it."""
        request = self.like
        keep = request.keep_alive and not self.lanes.stopping
        self._close_after = not keep
        assert self._connection is not None
        reply, shaped, own = self._connection.reply, self._shaped, self.request_id
        if reply is not None:
            if not reply.is_dated:
                own += self.lanes.context.date()
            before, behind = reply.for_client(request, framing, keep)
            return b"".join((before, own, behind, body))
        if not (is_dated(head) if shaped is None else shaped[0].is_dated):
            own += self.lanes.context.date()
        if shaped is not None:
            return shaped[0].to_client(shaped[1], request, own, framing, keep) + body
        return response_to_client(head, request, own, framing, keep) + body


def reply_too_slow(record: ReplySide) -> None:
    if record.has_waited(record.timeouts.response_s):
        record._resume("slow_reply")
