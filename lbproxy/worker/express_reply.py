"""The express lane's way back: the response of a backend, to the client. See express.py for the way there.

Nothing here retries or writes an error page. What is not plain goes to the task lane, as long as no byte of the
response has gone to the client; after that it is cut.
"""

from lbproxy.model import LeaseKind
from lbproxy.wire.body import chunk, last_chunk, response_body
from lbproxy.wire.head import Refused, ResponseHead, read_response, response_head_end
from lbproxy.wire.headers import Framing, response_to_client
from lbproxy.worker.express_record import ExpressRecord
from lbproxy.worker.reactor import READ, WRITE

BODY_BYTES = 64 * 1024
MARK = b"\0"  # stands for the request id while a template is made: no head can contain it


def split_at_id(head: bytes) -> tuple[bytes, bytes]:
    """What stands before and behind the request id, in a head made with MARK for it."""
    before, _, behind = head.partition(MARK)
    return before, behind


class ReplySide(ExpressRecord):
    __slots__ = ()

    def _resume(self, why: str, data: bytes = b"") -> None:
        raise NotImplementedError

    def on_reply(self, mask: int) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            data = connection.recv(connection.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._resume("backend_ended")
            return
        if connection.buffer:
            data = bytes(connection.buffer) + data
            connection.buffer.clear()
        end = data.find(b"\r\n\r\n") + 4
        raw = data[:end]
        if raw == connection.raw:
            head = connection.head
            connection.seen = True
        else:
            try:
                if end < 4:
                    response_head_end(data, 0)
                    connection.buffer += data
                    return
                head = read_response(raw, self.lanes.lines)
            except Refused:
                self._resume("bad_response", data)
                return
            connection.remember(raw, head)
        status, length, request = head.status, head.length, self.head
        if status < 200 or head.event_stream:
            self._resume("stream" if head.event_stream else "interim", data)
        elif request.method == b"HEAD" or status == 204 or status == 304:
            self._answer(head, Framing.NONE, b"", clean=end == len(data))
        elif length is not None:
            have = len(data) - end
            if have == length:
                self._answer(head, Framing.LENGTH, data[end:], clean=True)
            elif have > length:
                self._answer(head, Framing.LENGTH, data[end : end + length], clean=False)
            else:
                self._begin_body(head, data[end:], length - have)
        elif head.chunked and request.minor:
            self._answer_chunked(head, data, end)
        else:
            self._resume("chunked_reply" if head.chunked else "until_close", data)

    def _answer_chunked(self, head: ResponseHead, data: bytes, end: int) -> None:
        """Chunks that are all here are framed anew; what is not complete goes to the task lane as it came."""
        body = response_body(head, self.head.method)
        try:
            payload = body.feed(data[end:])
        except Refused:
            payload = b""
        if not body.done:
            self._resume("chunked_reply", data)
            return
        trailers = body.trailers if self.head.wants_trailers else ()
        framed = chunk(payload) + last_chunk(trailers)
        self._answer(head, Framing.CHUNKED, framed, clean=not body.rest)
        self._reply_bytes = len(payload)

    def _answer(self, head: ResponseHead, framing: Framing, body: bytes, *, clean: bool) -> None:
        """The whole answer is in hand: let go of the backend, then send."""
        out = self._head_for_client(head, framing)
        self._status = head.status
        self._reply_bytes = len(body)
        self._let_backend_go(reusable=clean and head.keep_alive)
        self._send_last(out + body if body else out)

    def _head_for_client(self, head: ResponseHead, framing: Framing) -> bytes:
        """Made once for a backend connection, as long as its heads and the shape of ours repeat."""
        request = self.head
        keep = request.keep_alive and not self.lanes.stopping
        self._close_after = not keep
        connection = self._connection
        assert connection is not None
        shape = (framing, keep, request.minor)
        if connection.shape == shape:
            before, behind = connection.template
            return before + self.request_id + behind
        if connection.seen:  # not the first time: it is worth a template
            connection.shape = shape
            connection.template = split_at_id(response_to_client(head, request, MARK, framing, keep))
        return response_to_client(head, request, self.request_id, framing, keep)

    def _send_last(self, data: bytes) -> None:
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._client_gone()
            return
        if sent == len(data):
            self._done()
        else:
            self._out = data[sent:]
            self._wait_for_client()

    # A body that is longer than what came with its head

    def _begin_body(self, head: ResponseHead, part: bytes, left: int) -> None:
        connection, lease, reactor = self._connection, self._lease, self.lanes.reactor
        assert connection is not None
        assert lease is not None
        out = self._head_for_client(head, Framing.LENGTH)
        connection.recv_bytes = BODY_BYTES
        self._status = head.status
        self._from_head = head
        self._body_left = left
        self._reply_bytes = len(part)
        self.lanes.router.change_kind(lease, LeaseKind.TRANSFER)
        reactor.handle(connection.fd, self.on_body)
        reactor.arm(self, self.timeouts.idle_s)
        self._too_late = self._body_stalled
        self._pass_on(out + part)

    def on_body(self, mask: int) -> None:
        connection, lease = self._connection, self._lease
        if connection is None or lease is None:
            return
        try:
            data = connection.recv(BODY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._cut_short("http_response_incomplete")
            return
        left = self._body_left - len(data)
        if left < 0:
            data = data[:left]  # what comes behind the body reaches nobody
        self._body_left = left
        self._reply_bytes += len(data)
        if left <= 0:
            self._let_backend_go(reusable=left == 0 and self._from_head.keep_alive)
            self._send_last(data)
            return
        reactor = self.lanes.reactor
        lease.moved_at = reactor.now
        reactor.arm(self, self.timeouts.idle_s)
        self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """A part of a body: what the client does not take at once stops the reading of the backend."""
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._client_gone()
            return
        if sent < len(data):
            assert self._connection is not None
            self._out = data[sent:]
            self.lanes.reactor.unregister(self._connection.fd)
            self._wait_for_client()

    def _wait_for_client(self) -> None:
        """It is not read meanwhile: whether it is still there shows when it is written to."""
        reactor = self.lanes.reactor
        if self._reading:
            reactor.modify(self.fd, WRITE)
            reactor.handle(self.fd, self.on_flush)
        else:
            self._reading = True
            reactor.register(self.fd, WRITE, self.on_flush)
        reactor.arm(self, self.view.settings.timeouts.body_s)
        self._too_late = self._client_gone

    def on_flush(self, mask: int) -> None:
        if not self._out:
            return
        try:
            sent = self._send(self._out)
        except BlockingIOError:
            return
        except OSError:
            self._client_gone()
            return
        reactor = self.lanes.reactor
        self._out = self._out[sent:]
        if self._out:
            reactor.arm(self, self.view.settings.timeouts.body_s)
            return
        reactor.modify(self.fd, READ)
        reactor.handle(self.fd, self.on_client)
        if self._connection is None:
            self._done()
            return
        reactor.register(self._connection.fd, READ, self.on_body)
        reactor.arm(self, self.timeouts.idle_s)
        self._too_late = self._body_stalled

    def _body_stalled(self) -> None:
        self._cut_short("connection_read_timeout")
