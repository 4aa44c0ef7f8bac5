"""One small HTTP/2 client: one connection by prior knowledge (or ALPN), one request, one answer. For probes.

Frames, windows and heads are read by wire/http2/, as strictly as those of backends. Like http_client.py it keeps no
connection and has no time limit of its own: the caller has.
"""

from dataclasses import dataclass, field

import trio

from lbproxy.errors import LbproxyError
from lbproxy.wire.head import Lines, ResponseHead
from lbproxy.wire.http2.backend_heads import response_head
from lbproxy.wire.http2.connection import Http2Connection
from lbproxy.wire.http2.encoder import field as encoded
from lbproxy.wire.http2.errors import ConnectionFailed, NoStreams, StreamFailed, name_of
from lbproxy.wire.http2.hpack import Fields
from lbproxy.wire.http2.peer_settings import LocalSettings

RECEIVE_BYTES = 16384


class NoHttp2Answer(LbproxyError):
    """There was no complete answer, for the reason in words."""


@dataclass(frozen=True, slots=True)
class Http2Ask:
    method: str
    path: str
    authority: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    scheme: str = "http"

    def block(self) -> bytes:
        pseudo = ((":method", self.method), (":scheme", self.scheme), (":authority", self.authority))
        fields = (*pseudo, (":path", self.path), *((name.lower(), value) for name, value in self.fields))
        return b"".join(encoded(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields)


@dataclass(slots=True)
class Http2Answer:
    """`body`: at most as much as was asked for."""

    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)  # of the head, and of the trailers
    body: bytes = b""


async def ask(stream: trio.abc.Stream, request: Http2Ask, *, most_bytes: int, body_s: float) -> Http2Answer:
    """A body that breaks off, or does not come within `body_s` behind its head, is not waited for.

    Raises NoHttp2Answer, wire.head.Refused for a head that HTTP does not allow, trio.BrokenResourceError.
    """
    asked = _Asked(most_bytes)
    connection = Http2Connection(asked, LocalSettings(), client=True)
    asked.connection = connection
    connection.begin()
    try:
        stream_id = connection.open_stream()
        connection.send_head(stream_id, request.block(), end=not request.body)
        if request.body:
            connection.send_data(stream_id, request.body, end=True)
        await stream.send_all(connection.take())
        while not asked.has_head:
            if not await _more(stream, connection):
                raise NoHttp2Answer(asked.why or "closed without an answer")
            asked.check()
        with trio.move_on_after(body_s):
            while not asked.is_over and await _more(stream, connection):
                pass
        if asked.is_over:  # leave politely: servers log connections that break off
            connection.goaway(0, 0)
            await stream.send_all(connection.take())
    except (ConnectionFailed, NoStreams) as exc:
        raise NoHttp2Answer(f"this is not HTTP/2: {exc}") from None
    return asked.answer


async def _more(stream: trio.abc.Stream, connection: Http2Connection) -> bool:
    """False at the end of the connection."""
    data = await stream.receive_some(RECEIVE_BYTES)
    if not data:
        return False
    connection.feed(bytes(data), trio.current_time())
    if out := connection.take():
        await stream.send_all(out)
    return True


class _Asked:
    """The owner of the connection: what has come of the answer."""

    connection: Http2Connection

    def __init__(self, most_bytes: int) -> None:
        self.answer = Http2Answer()
        self.has_head = False  # the final one
        self.is_over = False
        self.why = ""
        self._most_bytes = most_bytes
        self._lines = Lines()

    def check(self) -> None:
        if self.why and not self.has_head:
            raise NoHttp2Answer(self.why)

    def on_head(self, stream_id: int, fields: Fields, end: bool) -> None:
        head: ResponseHead = response_head(fields, self._lines)
        if head.status >= 200:
            self.answer.status, self.has_head = head.status, True
            self._note(fields)
        self.is_over = end

    def on_large_head(self, stream_id: int, fields: Fields, end: bool) -> None:
        self._end("a head that is too large")

    def on_data(self, stream_id: int, data: bytes, size: int, end: bool) -> None:
        self.answer.body += data[: self._most_bytes - len(self.answer.body)]
        self.connection.credit(stream_id, size)
        self.is_over = end or len(self.answer.body) >= self._most_bytes

    def on_trailers(self, stream_id: int, fields: Fields) -> None:
        self._note(fields)
        self.is_over = True

    def on_reset(self, stream_id: int, code: int) -> None:
        self._end(f"the stream was reset ({name_of(code)})")

    def on_failed(self, failure: StreamFailed) -> None:
        self._end(str(failure))

    def on_writable(self, stream_id: int) -> None: ...

    def on_goaway(self, last_id: int, code: int, debug: bytes) -> None:
        if code:
            self.why = f"the backend went away ({name_of(code)})"

    def on_ping_ack(self, payload: bytes) -> None: ...

    def on_settings(self) -> None: ...

    def _end(self, why: str) -> None:
        self.why, self.is_over = why, True

    def _note(self, fields: Fields) -> None:
        self.answer.fields |= {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}
