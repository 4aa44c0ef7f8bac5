"""The heads of a backend's responses, as the task lane reads them; and what it means that none comes.

Knows one backend connection and its bytes. Knows nothing of clients, and decides no retry (policy/retry.py).
"""

from lbproxy.errors import LbproxyError, ProxyError
from lbproxy.model import BackendView
from lbproxy.wire.bare_lf import with_crlf
from lbproxy.wire.head import Lines, Refused, ResponseHead, read_response, response_head_end
from lbproxy.wire.http1 import confirm_response
from lbproxy.wire.startline import has_status_line
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.io.stream import StreamBroken
from lbproxy.worker.task.time_limits import DeadlinePassed


class NoAnswer(LbproxyError):
    """The backend's connection ended, or brought nonsense, before a valid status line.

    `reused`: the connection had served before. Nonsense counts as no answer on such a connection only: it may be the
    rest of an earlier answer. `was_reset`: the backend has not read the whole request.
    `was_sent`: the request may have come to it.
    """

    token = "connection_terminated"  # the error type of RFC 9209, if nothing helps

    def __init__(
        self, reason: str, backend: BackendView, *, reused: bool, was_reset: bool, was_sent: bool = True
    ) -> None:
        super().__init__(reason)
        self.backend = backend
        self.was_sent = was_sent
        self.reused = reused
        self.was_reset = was_reset


def is_to_blame(trouble: LbproxyError) -> bool:
    """Whether an attempt failed because of its backend. The end of a kept connection is nobody's fault, nor is a stream
    that a full backend refuses; a deadline that a client sets is its own."""
    if isinstance(trouble, NoAnswer):
        return not trouble.reused and trouble.was_sent
    if isinstance(trouble, DeadlinePassed):
        return False
    return isinstance(trouble, ProxyError | Refused) and trouble.status in (502, 504) and trouble.token != "cut"


class ResponseHeads:
    """The response heads of one request. Bytes behind a head stay in the connection's buffer."""

    def __init__(
        self, connection: BackendConnection, method: bytes, lines: Lines, *, accept_bare_lf: bool = False
    ) -> None:
        self._connection = connection
        self._method = method
        self._lines = lines
        self._accept_bare_lf = accept_bare_lf
        self._heard = False  # a head has come, if only an interim one

    async def read(self) -> ResponseHead:
        """The next one. Raises NoAnswer, ProxyError (502) or Refused (502)."""
        connection = self._connection
        buffer, seen = bytearray(connection.buffer), 0
        connection.buffer = b""
        while (end := self._end(buffer, seen)) < 0:
            seen = len(buffer)
            try:
                data = await connection.stream.receive()
            except StreamBroken as exc:
                connection.is_reset = True
                raise self._ended(str(exc), buffer) from exc
            if not data:
                raise self._ended("the backend closed the connection before it had answered", buffer)
            buffer += data
        raw = bytes(buffer[:end])
        connection.buffer = bytes(buffer[end:])
        try:
            head = read_response(raw, self._lines)
        except Refused as exc:
            raise self._nonsense(exc, buffer) from None
        confirm_response(raw, head, self._method)
        self._heard = True
        return head

    def _end(self, buffer: bytearray, seen: int) -> int:
        """As response_head_end; empty lines before a status line are taken away."""
        while buffer.startswith(b"\r\n"):
            del buffer[:2]
            seen = 0
        if not buffer or buffer == b"\r":
            return -1
        if self._accept_bare_lf:
            buffer[:] = with_crlf(buffer)
            seen = 0
        try:
            return response_head_end(buffer, seen)
        except Refused as exc:
            raise self._nonsense(exc, buffer) from None

    def _nonsense(self, refused: Refused, buffer: bytearray) -> LbproxyError:
        if self._connection.reused and not self._heard and not has_status_line(buffer):
            return self._no_answer(refused.reason)
        return refused

    def _ended(self, reason: str, buffer: bytearray) -> LbproxyError:
        nothing = not buffer or (self._connection.reused and not has_status_line(buffer))
        if nothing and not self._heard:
            return self._no_answer(reason)
        return ProxyError(502, "connection_terminated", reason)

    def _no_answer(self, reason: str) -> NoAnswer:
        connection = self._connection
        return NoAnswer(reason, connection.backend, reused=connection.reused, was_reset=connection.is_reset)
