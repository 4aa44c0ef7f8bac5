"""An answer in HTTP/1: heads, framing and the end of the body, on the client's stream (see worker/reply.py).

Knows bytes and one stream. Knows no backend and no exchange.
"""

from collections.abc import Sequence

from lbproxy.wire.body import chunk, last_chunk
from lbproxy.wire.head import RequestHead, ResponseHead
from lbproxy.wire.headers import Framing, framing_for_client, response_to_client
from lbproxy.wire.pages import ErrorPage, error_response
from lbproxy.worker.io.stream import ByteStream, StreamBroken, StreamStalled
from lbproxy.worker.reply import ClientGone


class Http1Reply:
    """`request`: None for bytes that could not be read as a request; then only an error can be sent."""

    def __init__(self, stream: ByteStream, request: RequestHead | None) -> None:
        self._stream = stream
        self._request = request
        self._framing = Framing.NONE
        self._out = b""
        self.begun = False

    @property
    def pending(self) -> int:
        return self._stream.pending

    def can_keep(self, head: ResponseHead) -> bool:
        return framing_for_client(head, self._asked) is not Framing.CLOSE

    def interim(self, head: ResponseHead, own: bytes) -> None:
        if self._asked.minor:
            self._put(response_to_client(head, self._asked, own, Framing.NONE, True))

    def switched(self, head: ResponseHead, own: bytes) -> bytes:
        return response_to_client(head, self._asked, own, Framing.NONE, True)

    def head(self, head: ResponseHead, own: bytes, *, keep: bool) -> None:
        self._framing = framing_for_client(head, self._asked)
        self._out = response_to_client(head, self._asked, own, self._framing, keep)

    def data(self, payload: bytes) -> None:
        if payload:
            self._out += chunk(payload) if self._framing is Framing.CHUNKED else payload

    def push(self) -> None:
        out, self._out = self._out, b""
        if out:
            self.begun = True
            self._put(out)

    def end(self, trailers: Sequence[bytes]) -> None:
        if self._framing is Framing.CHUNKED:
            self._out += last_chunk(trailers if self._asked.wants_trailers else ())
        self.push()

    def error(self, page: ErrorPage) -> int:
        data = error_response(page)
        self.begun = True
        self._put(data)
        return len(data) - data.index(b"\r\n\r\n") - 4

    def cut(self) -> None:
        if self._framing is Framing.CLOSE:
            self._stream.reset()  # its end would be the end of the body

    async def flush(self, stall_s: float) -> None:
        if self._stream.pending:
            try:
                await self._stream.flush(stall_s)
            except (StreamBroken, StreamStalled) as exc:
                raise ClientGone(str(exc)) from exc

    @property
    def _asked(self) -> RequestHead:
        assert self._request is not None
        return self._request

    def _put(self, data: bytes) -> None:
        try:
            self._stream.put(data)
        except StreamBroken as exc:
            raise ClientGone(str(exc)) from exc
