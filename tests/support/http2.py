"""An HTTP/2 client for tests over a blocking socket, plain or with TLS: python-hyper's h2 speaks, the test decides.

with http2(lb.port) as client:                                   # prior knowledge; tls=True: ALPN h2
    assert client.get("/").status == 200
    stream = client.request("POST", "/up", end=False)            # a stream id
    client.send(stream, b"part")                                 # waits for windows
    client.send(stream, b"", end=True, trailers=[("x-sum", "1")])
    answer = client.answer(stream)                               # status, headers, body, trailers, reset
    assert client.names(stream) == ["HEADERS", "DATA"]           # frames as they came

One thread: nothing is read but while a method waits. Every frame received is kept in `frames`, in its order. h2 does
not see a GOAWAY (it would end the connection for streams in hand): `goaways` has them.
"""

import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hyperframe.frame import Frame, GoAwayFrame

from support.tls_peer import pem

PATIENCE_S = 20.0
READ_BYTES = 1 << 18
HEAD_BYTES = 9  # of a frame
Fields = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Answer2:
    """A response, as far as it has come."""

    status: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)  # 1xx
    ended: bool = False  # END_STREAM has come
    reset: int | None = None  # error code of an RST_STREAM
    owed: int = 0  # bytes of DATA for which no window was given back, with `holds`

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.fields)

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Http2:
    """One connection. `holds`: windows are given back by `credit` alone. `settings`: of the client, by h2's codes."""

    def __init__(self, sock: socket.socket, *, holds: bool = False, settings: dict[int, int] | None = None) -> None:
        sock.settimeout(PATIENCE_S)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.holds = holds
        self.frames: list[Frame] = []
        self.goaways: list[GoAwayFrame] = []
        self._is_corked = False
        self.answers: dict[int, Answer2] = {}
        self.ended = False  # the server has closed the connection
        self.was_reset = False
        self._rest = b""
        # Tests write malformed requests too; what lbproxy answers is checked.
        config = H2Configuration(
            client_side=True,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = H2Connection(config)
        if settings:
            self.h2.local_settings.update(settings)
        self.h2.initiate_connection()
        self.flush()

    # -- sending

    @contextlib.contextmanager
    def corked(self) -> Iterator[None]:
        """What is put meanwhile leaves together."""
        self._is_corked = True
        try:
            yield
        finally:
            self._is_corked = False
            self.flush()

    def flush(self) -> None:
        if self._is_corked:
            return
        if data := self.h2.data_to_send():
            self.send_raw(data)

    def send_raw(self, data: bytes) -> None:
        """Bytes that h2 has not seen, such as frames that it would not make."""
        with contextlib.suppress(ConnectionError):  # what was answered before is still to be read
            self.sock.sendall(data)

    def send_frame(self, frame: Frame) -> None:
        self.send_raw(frame.serialize())

    def request(
        self,
        method: str,
        path: str,
        fields: Fields = (),
        *,
        end: bool = True,
        authority: str = "test",
        scheme: str = "",
    ) -> int:
        """Open a stream with a request head."""
        scheme = scheme or ("https" if isinstance(self.sock, ssl.SSLSocket) else "http")
        pseudo = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
        return self.open([*pseudo, *fields], end=end)

    def open(self, fields: Fields, *, end: bool = True) -> int:
        """Open a stream with exactly these fields."""
        stream = int(self.h2.get_next_available_stream_id())
        self.answers[stream] = Answer2()
        self.h2.send_headers(stream, list(fields), end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False, trailers: Fields = ()) -> None:
        """Send DATA as the windows allow, and the end. Stops where the server has reset the stream."""
        view = memoryview(data)
        answer = self.answers[stream]
        while view:
            self.wait(lambda: answer.reset is not None or self.window(stream) > 0)
            if answer.reset is not None:
                return
            size = min(len(view), self.window(stream), self.h2.max_outbound_frame_size)
            self.h2.send_data(stream, bytes(view[:size]), end_stream=end and not trailers and size == len(view))
            self.flush()
            view = view[size:]
        if trailers:
            self.h2.send_headers(stream, list(trailers), end_stream=True)
        elif end and not data:
            self.h2.end_stream(stream)
        self.flush()

    def window(self, stream: int) -> int:
        return int(self.h2.local_flow_control_window(stream))

    def credit(self, stream: int) -> None:
        """Give back the windows that the DATA of this stream has used (see `holds`)."""
        answer = self.answers[stream]
        size, answer.owed = answer.owed, 0
        if size:
            self.h2.acknowledge_received_data(size, stream)
            self.flush()

    def reset(self, stream: int, code: int = 8) -> None:
        self.h2.reset_stream(stream, code)
        self.flush()

    def ping(self, payload: bytes = b"12345678") -> None:
        self.h2.ping(payload)
        self.flush()

    # -- receiving

    def step(self) -> bool:
        """Read once. False at the end of the connection."""
        if self.ended:
            return False
        try:
            data = self.sock.recv(READ_BYTES)
        except (ConnectionResetError, ssl.SSLEOFError):
            self.was_reset, data = True, b""
        if not data:
            self.ended = True
            return False
        self._rest += data
        while (whole := _first_frame(self._rest)) is not None:
            raw, self._rest = self._rest[:whole], self._rest[whole:]
            self._take(raw)
        self.flush()
        return True

    def _take(self, raw: bytes) -> None:
        frame, _ = Frame.parse_frame_header(memoryview(raw[:HEAD_BYTES]))
        frame.parse_body(memoryview(raw[HEAD_BYTES:]))
        self.frames.append(frame)
        if isinstance(frame, GoAwayFrame):
            self.goaways.append(frame)
            return
        for event in self.h2.receive_data(raw):
            self._note(event)

    def _note(self, event: Any) -> None:
        answer = self.answers.get(getattr(event, "stream_id", None) or 0, Answer2())
        if isinstance(event, ResponseReceived):
            answer.status, answer.fields = _split(event.headers)
        elif isinstance(event, InformationalResponseReceived):
            answer.interim.append(_split(event.headers))
        elif isinstance(event, TrailersReceived):
            answer.trailers = [*event.headers]  # type: ignore[list-item]
        elif isinstance(event, DataReceived):
            answer.body += event.data or b""
            if self.holds:
                answer.owed += event.flow_controlled_length or 0
            elif event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
        elif isinstance(event, StreamEnded):
            answer.ended = True
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code or 0)

    def wait(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        """Read until the condition is true."""
        deadline = monotonic() + timeout_s
        while not condition():
            left = deadline - monotonic()
            assert left > 0, f"did not come true within {timeout_s} s: {self!r}"
            self.sock.settimeout(left)
            try:
                assert self.step(), f"the connection has ended: {self!r}"
            except TimeoutError:
                continue
            finally:
                self.sock.settimeout(PATIENCE_S)

    def answer(self, stream: int) -> Answer2:
        """The answer of a stream once it is over: at END_STREAM or RST_STREAM."""
        answer = self.answers[stream]
        self.wait(lambda: answer.over)
        return answer

    def head(self, stream: int) -> Answer2:
        """The answer as soon as its final head, or a reset, is there."""
        answer = self.answers[stream]
        self.wait(lambda: answer.status or answer.over)
        return answer

    def get(self, path: str = "/", fields: Fields = ()) -> Answer2:
        return self.answer(self.request("GET", path, fields))

    def post(self, path: str, body: bytes, fields: Fields = ()) -> Answer2:
        stream = self.request("POST", path, fields, end=False)
        self.send(stream, body, end=True)
        return self.answer(stream)

    def wait_end(self, timeout_s: float = PATIENCE_S) -> None:
        """Read until the server has closed the connection."""
        deadline = monotonic() + timeout_s
        while not self.ended:
            self.sock.settimeout(max(deadline - monotonic(), 0.001))
            self.step()

    # -- facts

    def names(self, stream: int | None = None) -> list[str]:
        """The frames received so far, of one stream or of all, such as HEADERS, DATA, RST_STREAM, in their order."""
        return [frame_name(frame) for frame in self.frames if stream in (None, frame.stream_id)]

    def __repr__(self) -> str:
        frames = " ".join(f"{frame_name(frame)}({frame.stream_id})" for frame in self.frames[-20:])
        return f"<Http2 {'ended' if self.ended else 'open'}, last frames: {frames}>"

    def close(self) -> None:
        self.sock.close()


def frame_name(frame: Frame) -> str:
    """Its name in RFC 9113, such as RST_STREAM."""
    found = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(frame).__name__.removesuffix("Frame")).upper()
    return "GOAWAY" if found == "GO_AWAY" else found


def _first_frame(data: bytes) -> int | None:
    """The length of the first whole frame."""
    if len(data) < HEAD_BYTES:
        return None
    length = HEAD_BYTES + int.from_bytes(data[:3], "big")
    return length if len(data) >= length else None


def _split(headers: Any) -> tuple[int, list[tuple[str, str]]]:
    fields = [(str(name), str(value)) for name, value in headers]
    return int(dict(fields)[":status"]), [item for item in fields if not item[0].startswith(":")]


def tls_context(*protocols: str) -> ssl.SSLContext:
    """A client's context for the certificate of support.tls_peer."""
    context = ssl.create_default_context(cafile=str(pem()))
    context.set_alpn_protocols(list(protocols or ("h2",)))
    return context


def connect2(port: int, *, tls: bool = False, holds: bool = False, settings: dict[int, int] | None = None) -> Http2:
    """Connect a client; the test closes it. `tls` asks for h2 by ALPN."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    try:
        if tls:
            sock = tls_context().wrap_socket(sock, server_hostname="a.example")
            assert sock.selected_alpn_protocol() == "h2", sock.selected_alpn_protocol()  # type: ignore[attr-defined]
        return Http2(sock, holds=holds, settings=settings)
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def http2(port: int, **options: Any) -> Iterator[Http2]:
    """`connect2`, and closed behind the block."""
    with contextlib.closing(connect2(port, **options)) as client:
        yield client
