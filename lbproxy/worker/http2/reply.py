"""An answer on a stream of HTTP/2: heads and trailers as HEADERS, the body as DATA (see worker/reply.py).

Knows one stream. What is put leaves with everything else of the connection, at the end of the reactor's batch.
"""

from collections.abc import Sequence
from typing import Protocol

import trio

from lbproxy.wire.head import Refused, RequestHead, ResponseHead
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.errors import CANCEL, INTERNAL_ERROR
from lbproxy.wire.http2.response import error_block, response_block, trailers_block, tunnel_block
from lbproxy.wire.http2.websocket import check_accept
from lbproxy.wire.pages import ErrorPage
from lbproxy.worker.reply import ClientGone


class Stream(Protocol):
    """What an answer asks of its stream. `send_*` and `reset` raise ClientGone where the stream is over."""

    @property
    def encoded_lines(self) -> EncodedLines: ...
    @property
    def pending(self) -> int: ...
    def send_head(self, block: bytes, *, end: bool) -> None: ...
    def send_data(self, payload: bytes, *, end: bool) -> None: ...
    def reset(self, code: int) -> None: ...
    async def wait_taken(self, pending: int) -> None: ...


class Http2Reply:
    """`request`: None for fields that could not be read as a request; then only an error can be sent."""

    __slots__ = ("_block", "_out", "_request", "_stream", "begun", "ended")

    def __init__(self, stream: Stream, request: RequestHead | None) -> None:
        self._stream = stream
        self._request = request
        self._block = b""  # of the final head, until the first bytes follow
        self._out = b""
        self.begun = False
        self.ended = False

    @property
    def pending(self) -> int:
        return self._stream.pending

    def can_keep(self, head: ResponseHead) -> bool:
        return True

    def interim(self, head: ResponseHead, own: bytes) -> None:
        self._stream.send_head(response_block(head, own, self._stream.encoded_lines), end=False)

    def switched(self, head: ResponseHead, own: bytes) -> bytes:
        """Nothing is left for the relay to send: the 200 is put here."""
        assert self._request is not None
        check_accept(self._request, head)
        self.begun = True
        self._stream.send_head(tunnel_block(head, own, self._stream.encoded_lines), end=False)
        return b""

    def head(self, head: ResponseHead, own: bytes, *, keep: bool) -> None:
        if head.status < 300 and self._request is not None and self._request.upgrades:
            raise Refused(501, "http_upgrade_failed", f"the backend answered the upgrade with {head.status}")
        self._block = response_block(head, own, self._stream.encoded_lines)

    def data(self, payload: bytes) -> None:
        self._out = self._out + payload if self._out else payload

    def push(self) -> None:
        self._push(end=False)

    def end(self, trailers: Sequence[bytes]) -> None:
        if not trailers:
            self._push(end=True)
            return
        self._push(end=False)
        self.ended = True
        self._stream.send_head(trailers_block(trailers, self._stream.encoded_lines), end=True)

    def error(self, page: ErrorPage) -> int:
        self._block, body = error_block(page, self._stream.encoded_lines)
        self._out = body
        self._push(end=True)
        return len(body)

    def cut(self) -> None:
        """The client must not take a part for the whole."""
        self.ended = True
        self._stream.reset(INTERNAL_ERROR)

    async def flush(self, stall_s: float) -> None:
        while pending := self._stream.pending:
            with trio.move_on_after(stall_s) as patience:
                await self._stream.wait_taken(pending)
            if patience.cancelled_caught:
                self._stream.reset(CANCEL)
                raise ClientGone(f"nothing taken for {stall_s:g}s")

    def _push(self, *, end: bool) -> None:
        block, out = self._block, self._out
        self._block = self._out = b""
        self.ended = end
        if block:
            self.begun = True
            self._stream.send_head(block, end=end and not out)
            if not out:
                return
        if out or end:
            self._stream.send_data(out, end=end)
