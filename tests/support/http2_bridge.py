"""A socket that takes HTTP/1 requests and gives HTTP/1 answers, and speaks HTTP/2 on the wire: for support.peer.

So a test that plays an HTTP/1 client says the same to a listener with h2c: each request is a stream. What HTTP/2 has no
words for (Connection, framing) is left out on the way there and made on the way back. python-hyper's h2 speaks.
"""

import socket
from collections import deque
from contextlib import suppress
from typing import Any

import trio
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
from h2.exceptions import ProtocolError

GOAWAY = 7
HOPS = (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection")


class _Stream:
    def __init__(self, number: int, method: bytes) -> None:
        self.number = number
        self.method = method
        self.out: deque[tuple[bytes, int]] = deque()  # HTTP/1 bytes of the answer, and what a window is owed for them
        self.is_chunked = False
        self.is_over = False
        self.is_reset = False  # before the answer was over
        self.takes_nothing = False  # of the request: it was reset


class Http2PeerSocket:
    """Of a connected trio socket. One task may send while another one receives."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self.h2 = H2Connection(
            H2Configuration(
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._reading = trio.Lock()
        self._ended = False
        self._unread = b""
        self._asked = b""  # of a request that is not whole yet
        self._left: int | None = None  # of the body of the request in hand; None: of its chunks
        self._upload: _Stream | None = None
        self._streams: dict[int, _Stream] = {}
        self._answers: deque[_Stream] = deque()  # in the order of the requests

    async def begin(self) -> None:
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 24)  # answers are read in the order of their requests
        await self._flush()

    # The way there

    async def send(self, data: Any) -> int:
        self._asked += bytes(data)
        while await self._send_some():
            pass
        return len(data)

    async def _send_some(self) -> bool:
        if self._upload is None:
            head, mark, rest = self._asked.partition(b"\r\n\r\n")
            if mark:
                self._asked = rest
                await self._open(head)
            return bool(mark)
        if self._left is None:
            return await self._send_chunk(self._upload)
        part, self._asked = self._asked[: self._left], self._asked[self._left :]
        self._left -= len(part)
        await self._send_data(self._upload, part, end=not self._left)
        if not self._left:
            self._upload = None
        return bool(self._asked)

    async def _open(self, head: bytes) -> None:
        start, *lines = head.split(b"\r\n")
        method, path, _ = start.split(b" ")
        given = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        of = dict(given)
        fields = [(b":method", method), (b":scheme", b"http"), (b":path", path)]
        if b"host" in of:
            fields.insert(2, (b":authority", of[b"host"]))
        fields += [field for field in given if field[0] not in (*HOPS, b"host")]
        chunked = of.get(b"transfer-encoding") == b"chunked"
        self._left = None if chunked else int(of.get(b"content-length", b"0"))
        number = self.h2.get_next_available_stream_id()
        stream = self._streams[number] = _Stream(number, method)
        self.h2.send_headers(number, fields, end_stream=self._left == 0)
        self._answers.append(stream)
        self._upload = None if self._left == 0 else stream
        await self._flush()

    async def _send_chunk(self, stream: _Stream) -> bool:
        line, mark, rest = self._asked.partition(b"\r\n")
        if not mark:
            return False
        size = int(line.partition(b";")[0], 16)
        if size:
            if len(rest) < size + 2:
                return False
            self._asked = rest[size + 2 :]
            await self._send_data(stream, rest[:size], end=False)
            return True
        if not rest.startswith(b"\r\n") and b"\r\n\r\n" not in rest:
            return False
        trailers, _, self._asked = (b"", b"", rest[2:]) if rest.startswith(b"\r\n") else rest.partition(b"\r\n\r\n")
        self._upload = None
        if not trailers:
            await self._send_data(stream, b"", end=True)
        elif not stream.takes_nothing:
            pairs = [line.partition(b":") for line in trailers.split(b"\r\n")]
            self.h2.send_headers(stream.number, [(n.lower(), v.strip()) for n, _, v in pairs], end_stream=True)
            await self._flush()
        return True

    async def _send_data(self, stream: _Stream, data: bytes, *, end: bool) -> None:
        """As the windows allow. A stream that was reset takes nothing any more."""
        at = 0
        while True:
            if at < len(data):
                await self._wait(lambda: stream.takes_nothing or self._window(stream) > 0)
            if stream.takes_nothing or self._ended:
                return
            part = data[at : at + min(self._window(stream), self.h2.max_outbound_frame_size)] if data else b""
            at += len(part)
            last = at == len(data)
            if part or end:
                self.h2.send_data(stream.number, part, end_stream=end and last)
                await self._flush()
            if last:
                return

    def _window(self, stream: _Stream) -> int:
        return int(self.h2.local_flow_control_window(stream.number))

    # The way back

    async def recv(self, size: int) -> bytes:
        """b"" at the end of the connection. Raises ConnectionResetError for a stream that was reset."""
        while True:
            await self._wait(lambda: self._answers and (self._answers[0].out or self._answers[0].is_over))
            if not self._answers:
                return b""
            stream = self._answers[0]
            taken = b""
            while stream.out and len(taken) < size:
                data, owed = stream.out.popleft()
                taken += data
                if owed and not self._ended:
                    with suppress(ProtocolError):
                        self.h2.acknowledge_received_data(owed, stream.number)
            with suppress(OSError):
                await self._flush()
            if taken:
                return taken
            if not stream.is_over:  # the connection has ended
                return b""
            self._answers.popleft()
            if stream.is_reset:
                raise ConnectionResetError

    async def _wait(self, condition: Any) -> None:
        while not condition() and not self._ended:
            async with self._reading:
                if condition() or self._ended:
                    return
                try:
                    data = await self.plain.recv(1 << 16)
                except OSError:
                    data = b""
                self._ended = not data
                self._unread += data
                while len(self._unread) >= 9 and len(self._unread) >= 9 + int.from_bytes(self._unread[:3], "big"):
                    size = 9 + int.from_bytes(self._unread[:3], "big")
                    frame, self._unread = self._unread[:size], self._unread[size:]
                    if frame[3] != GOAWAY:  # h2 would take no further frame of streams in hand
                        for event in self.h2.receive_data(frame):
                            self._note(event)
            with suppress(OSError):
                await self._flush()

    def _note(self, event: Any) -> None:
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, InformationalResponseReceived):
            stream.out.append((_head(event.headers, b""), 0))
        elif isinstance(event, ResponseReceived):
            of = dict(event.headers)
            bodyless = stream.method == b"HEAD" or of[b":status"] in (b"204", b"304")
            stream.is_chunked = not bodyless and b"content-length" not in of
            stream.out.append(
                (_head(event.headers, b"transfer-encoding: chunked\r\n" if stream.is_chunked else b""), 0)
            )
        elif isinstance(event, DataReceived):
            data = event.data or b""
            framed = b"%x\r\n%b\r\n" % (len(data), data) if stream.is_chunked and data else data
            stream.out.append((framed, event.flow_controlled_length or 0))
        elif isinstance(event, TrailersReceived):
            lines = b"".join(b"%b: %b\r\n" % (bytes(name), bytes(value)) for name, value in event.headers)
            stream.out.append((b"0\r\n" + lines + b"\r\n", 0))
            stream.is_chunked = False
        elif isinstance(event, StreamEnded):
            if stream.is_chunked:
                stream.out.append((b"0\r\n\r\n", 0))
            stream.is_over = True
        elif isinstance(event, StreamReset):
            stream.is_reset = not stream.is_over
            stream.is_over = stream.takes_nothing = True

    async def _flush(self) -> None:
        data = self.h2.data_to_send()
        while data:
            data = data[await self.plain.send(data) :]

    # As of a socket

    def shutdown(self, how: int) -> None:
        self.plain.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.plain.close()

    def fileno(self) -> int:
        return int(self.plain.fileno())

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self.plain.setsockopt(level, option, value)

    def getsockopt(self, *what: int) -> Any:
        return self.plain.getsockopt(*what)

    def getsockname(self) -> Any:
        return self.plain.getsockname()


def _head(fields: Any, more: bytes) -> bytes:
    of = dict(fields)
    lines = b"".join(b"%b: %b\r\n" % (bytes(name), bytes(value)) for name, value in fields if name != b":status")
    return b"HTTP/1.1 %b x\r\n%b%b\r\n" % (bytes(of[b":status"]), lines, more)
