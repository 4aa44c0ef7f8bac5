"""A backend that speaks HTTP/2: one exchange is one stream of a connection that others share (see backend_side.py)."""

import socket
from collections.abc import Callable, Sequence

import trio

from lbproxy.errors import LbproxyError, ProxyError
from lbproxy.wire.body import Body
from lbproxy.wire.head import Lines, ResponseHead
from lbproxy.wire.http2.backend_heads import request_block, response_head
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.errors import MalformedMessage
from lbproxy.wire.http2.request import trailers_of
from lbproxy.wire.http2.response import trailers_block
from lbproxy.wire.http2.websocket import switched
from lbproxy.wire.lines import bad_response
from lbproxy.worker.backends.http2_stream import BackendStream
from lbproxy.worker.backends.stream_owner import Loss
from lbproxy.worker.io.stream import StreamBroken, StreamStalled
from lbproxy.worker.io.stream_end import StreamEnd
from lbproxy.worker.task.backend_side import Asked
from lbproxy.worker.task.response_heads import NoAnswer


class Http2Backend:
    """`may_replay`: whether the request, as it stands, may reach a backend twice."""

    def __init__(
        self, stream: BackendStream, method: bytes, encoded: EncodedLines, lines: Lines, may_replay: Callable[[], bool]
    ) -> None:
        self._stream = stream
        self._method = method
        self._encoded = encoded
        self._lines = lines
        self._may_replay = may_replay
        self._is_answered = False  # a head has come, if only an interim one
        self._has_head = False
        self._asked: Asked | None = None

    @property
    def takes(self) -> bool:
        return self._stream.loss is None

    @property
    def may_refuse(self) -> bool:
        return not self._has_head

    @property
    def pending(self) -> int:
        return self._stream.pending

    def put_request(self, asked: Asked, payload: bytes, *, end: bool) -> None:
        scheme = b"https" if self._stream.backend.address.secure else b"http"
        self._asked = asked
        protocol = asked.upgrades[0] if asked.upgrades else b""
        facts = asked.client.facts
        block = request_block(asked.head, facts, asked.request_id, self._encoded, scheme=scheme, protocol=protocol)
        self._stream.begin(block, end=end and not payload and not protocol)
        if payload:
            self._stream.put(payload, end=end)

    def put(self, payload: bytes) -> None:
        if payload:
            self._stream.put(payload)

    def put_end(self, trailers: Sequence[bytes]) -> None:
        if trailers:
            self._stream.put_trailers(trailers_block(trailers, self._encoded))
        else:
            self._stream.put(b"", end=True)

    async def flush(self, stall_s: float) -> None:
        stream = self._stream
        while before := stream.pending:
            with trio.move_on_after(stall_s):
                while stream.pending == before:
                    await stream.wait_change()
                continue
            raise StreamStalled(f"nothing taken for {stall_s:g}s")

    async def next_head(self) -> ResponseHead:
        stream = self._stream
        while (fields := stream.next_head()) is None:
            if stream.loss is not None:
                raise self._without_head(stream.loss)
            await stream.wait_change()
        head = response_head(fields, self._lines)
        self._is_answered = True
        self._has_head = head.status >= 200
        if self._asked is not None and self._asked.upgrades and 200 <= head.status < 300:
            while stream.pending and stream.loss is None:
                await stream.wait_change()
            return switched(self._asked.head, head, self._asked.upgrades[0])
        return head

    def _without_head(self, loss: Loss) -> LbproxyError:
        """What it means that the stream ends here. Nobody's connection ends with it: a request that cannot be sent
        again is answered with 502."""
        if self._is_answered or loss.status != 502:
            return ProxyError(loss.status, loss.token, loss.reason)
        reused = loss.is_accident and self._stream.reused and (loss.is_unread or self._may_replay())
        return NoAnswer(loss.reason, self._stream.backend, reused=reused, was_reset=False, was_sent=not loss.is_unread)

    def body(self, head: ResponseHead) -> Body:
        is_empty = self._method == b"HEAD" or head.status in (204, 304)
        return _StreamBody(self._stream, None if is_empty else head.length, is_empty=is_empty)

    def take_received(self) -> bytes:
        return self._stream.take()

    async def receive(self, most_bytes: int) -> bytes:
        stream = self._stream
        while not stream.has_data:
            if stream.has_ended:
                return b""
            if stream.loss is not None:
                raise StreamBroken(stream.loss.reason)
            await stream.wait_change()
        return stream.take()

    def relay_end(self) -> socket.socket | StreamEnd:
        return self._stream.become_tunnel()

    def release(self, *, reusable: bool) -> None:
        self._stream.leave()


class _StreamBody(Body):
    """The DATA of a stream, which END_STREAM ends. `length`: what Content-Length announces."""

    __slots__ = ("_is_empty", "_left", "_stream")

    def __init__(self, stream: BackendStream, length: int | None, *, is_empty: bool) -> None:
        super().__init__(None, response=True)
        self._stream = stream
        self._left = length
        self._is_empty = is_empty  # HEAD, 204, 304
        self._settle()

    def feed(self, data: bytes) -> bytes:
        if data and self._is_empty:
            raise bad_response("a body where none may be")
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise bad_response("a body that is longer than its Content-Length")
        self._settle()
        return data

    def eof(self) -> None:
        self._settle()
        super().eof()

    def _settle(self) -> None:
        if self.done or not self._stream.has_ended or self._stream.has_data:
            return
        if self._left:
            raise self._refused("a body that is shorter than its Content-Length", "http_response_incomplete")
        try:
            self.trailers = trailers_of(self._stream.trailers)
        except MalformedMessage as problem:
            raise bad_response(f"malformed trailers: {problem}") from None
        self.done = True
