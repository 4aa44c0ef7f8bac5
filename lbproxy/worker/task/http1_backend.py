"""A backend that speaks HTTP/1: one connection carries one exchange at a time (see backend_side.py)."""

import socket
from collections.abc import Sequence

from lbproxy.wire.body import Body, chunk, last_chunk, response_body
from lbproxy.wire.head import Lines, RequestHead, ResponseHead
from lbproxy.wire.headers import client_of, request_to_backend
from lbproxy.worker.backends.announcement import announcement
from lbproxy.worker.backends.connections import BackendConnection, BackendConnections
from lbproxy.worker.io.stream import SocketStream, StreamBroken
from lbproxy.worker.io.stream_end import StreamEnd
from lbproxy.worker.task.backend_side import Asked
from lbproxy.worker.task.response_heads import ResponseHeads


class Http1Backend:
    """`request`: the head of what was or will be asked."""

    def __init__(
        self,
        connection: BackendConnection,
        request: RequestHead,
        keeper: BackendConnections,
        lines: Lines,
        *,
        accept_bare_lf: bool,
    ) -> None:
        self.connection = connection
        self.takes = True
        self.may_refuse = False
        self._keeper = keeper
        self._method = request.method
        self._is_chunked = request.chunked
        self._heads = ResponseHeads(connection, request.method, lines, accept_bare_lf=accept_bare_lf)

    @property
    def pending(self) -> int:
        return self.connection.stream.pending

    def put_request(self, asked: Asked, payload: bytes, *, end: bool) -> None:
        client, version = asked.client, self.connection.backend.send_proxy
        head = request_to_backend(asked.head, client.facts, asked.request_id, asked.upgrades)
        if version:
            head = announcement(version, client.sock, client.facts, client_of(asked.head, client.facts)) + head
        head += self._framed(payload)
        if end and self._is_chunked:
            head += last_chunk()
        self._limit_reads(client.read_bytes)
        self._put(head)

    def put(self, payload: bytes) -> None:
        self._put(self._framed(payload))

    def put_end(self, trailers: Sequence[bytes]) -> None:
        if self._is_chunked:
            self._put(last_chunk(trailers))

    def _framed(self, payload: bytes) -> bytes:
        return chunk(payload) if payload and self._is_chunked else payload

    def _put(self, data: bytes) -> None:
        if not self.takes:
            return
        try:
            self.connection.stream.put(data)
        except StreamBroken:
            self._is_broken()

    async def flush(self, stall_s: float) -> None:
        stream = self.connection.stream
        if not stream.pending or not self.takes:
            return
        try:
            await stream.flush(stall_s)
        except StreamBroken:
            self._is_broken()

    def _is_broken(self) -> None:
        self.takes, self.connection.is_reset = False, True

    async def next_head(self) -> ResponseHead:
        return await self._heads.read()

    def body(self, head: ResponseHead) -> Body:
        return response_body(head, self._method)

    def take_received(self) -> bytes:
        data, self.connection.buffer = self.connection.buffer, b""
        return data

    async def receive(self, most_bytes: int) -> bytes:
        self._limit_reads(most_bytes)
        return await self.connection.stream.receive()

    def _limit_reads(self, most_bytes: int) -> None:
        stream = self.connection.stream
        if isinstance(stream, SocketStream):
            stream.read_bytes = most_bytes

    def relay_end(self) -> socket.socket | StreamEnd:
        return self.connection.sock

    def release(self, *, reusable: bool) -> None:
        if reusable and not self.connection.stream.pending:
            self._keeper.give_back(self.connection)
        else:
            self.connection.close()
