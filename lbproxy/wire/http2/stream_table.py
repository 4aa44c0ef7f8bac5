"""The streams of one connection that are not closed: how they end, and what they hold of the connection's window."""

from collections.abc import Callable
from typing import Final

from lbproxy.wire.http2 import frames
from lbproxy.wire.http2.errors import (
    FLOW_CONTROL_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    ConnectionFailed,
    StreamFailed,
)
from lbproxy.wire.http2.frames import END_STREAM
from lbproxy.wire.http2.header_blocks import ON_ITSELF
from lbproxy.wire.http2.output import Output
from lbproxy.wire.http2.peer_settings import LocalSettings
from lbproxy.wire.http2.stream import RECEIVED, Stream, Verdict
from lbproxy.wire.http2.stream_ids import StreamIds

# A window is opened again when this part of it is used.
_STREAM_CREDIT_PART: Final = 2
_CONNECTION_CREDIT_PART: Final = 4


class StreamTable:
    __slots__ = ("_credit_bytes", "_settings", "ids", "open", "output", "receive_bytes")

    def __init__(self, settings: LocalSettings, writable: Callable[[int], None]) -> None:
        self.open: dict[int, Stream] = {}  # half-closed ones, too
        self.ids = StreamIds()
        self.output = Output(self.forget, writable)
        self.receive_bytes = max(settings.connection_window_bytes, frames.DEFAULT_WINDOW_BYTES)
        self._settings = settings
        self._credit_bytes = 0  # used, and not told the peer yet

    def add(self, stream_id: int, send_bytes: int) -> Stream:
        stream = self.open[stream_id] = Stream(stream_id, send_bytes, self._settings.stream_window_bytes)
        return stream

    def judge(self, kind: int, stream_id: int) -> None:
        """A frame for a stream that cannot take it as it stands: half closed, closed, or never opened. Returns if the
        frame is to be read over, and raises ConnectionFailed or StreamFailed if not."""
        stream = self.open.get(stream_id)
        state = self.ids.state_of(stream_id) if stream is None else stream.state
        verdict = RECEIVED[state][kind]
        if verdict is Verdict.STREAM_IS_CLOSED:
            raise StreamFailed(stream_id, STREAM_CLOSED, f"a frame of type {kind} behind the end of the stream")
        if verdict is Verdict.CONNECTION_IS_CLOSED:
            raise ConnectionFailed(STREAM_CLOSED, f"a frame of type {kind} on stream {stream_id}, which is closed")
        if verdict is not Verdict.IGNORED:
            raise ConnectionFailed(PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream_id}, which is not open")

    def received(self, size: int) -> None:
        """DATA has come, for whichever stream."""
        self.receive_bytes -= size
        if self.receive_bytes < 0:
            raise ConnectionFailed(FLOW_CONTROL_ERROR, "more data than the connection's window")

    def credit(self, stream: Stream, size: int) -> None:
        """`size` bytes of the stream's data were used."""
        stream.held_bytes -= size
        self.credit_connection(size)
        if not stream.remote_ended:
            stream.credit_bytes += size
            if stream.credit_bytes * _STREAM_CREDIT_PART >= self._settings.stream_window_bytes:
                self.output.control(frames.window_update(stream.id, stream.credit_bytes))
                stream.receive_bytes += stream.credit_bytes
                stream.credit_bytes = 0

    def credit_connection(self, size: int) -> None:
        self._credit_bytes += size
        if self._credit_bytes * _CONNECTION_CREDIT_PART >= self._settings.connection_window_bytes:
            self.output.control(frames.window_update(0, self._credit_bytes))
            self.receive_bytes += self._credit_bytes
            self._credit_bytes = 0

    def grow(self, size: int) -> None:
        """SETTINGS of the peer have changed the windows of all streams; below 0: they are smaller."""
        for stream in self.open.values():
            stream.send_bytes += size
            if stream.send_bytes > frames.LARGEST_WINDOW_BYTES:
                raise ConnectionFailed(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a window too large")
            self.output.wake(stream)

    def reset(self, stream_id: int, code: int) -> None:
        """Ours; the stream may be one that was never added."""
        self.output.control(frames.rst_stream(stream_id, code))
        self.ids.note_reset(stream_id)
        stream = self.open.get(stream_id)
        if stream is not None:
            self.drop(stream)

    def drop(self, stream: Stream) -> None:
        """The stream was reset, by one side or the other."""
        self.output.drop(stream)
        self.forget(stream)

    def end_remote(self, stream: Stream) -> None:
        """The peer's side has ended."""
        stream.remote_ended = True
        if stream.local_ended:
            self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """The stream is closed. What the owner still holds of it no longer counts for the connection's window."""
        self.open.pop(stream.id, None)
        if stream.held_bytes:
            self.credit_connection(stream.held_bytes)
            stream.held_bytes = 0


def check_block(stream: Stream, flags: int, trailers: bool) -> None:
    """Raises StreamFailed for a header block that may not come on this stream now."""
    if flags & ON_ITSELF:
        raise StreamFailed(stream.id, PROTOCOL_ERROR, "a stream that depends on itself")
    if trailers and not flags & END_STREAM:
        raise StreamFailed(stream.id, PROTOCOL_ERROR, "trailers that do not end the stream")
    if trailers and stream.expected_bytes > 0:
        raise StreamFailed(stream.id, PROTOCOL_ERROR, "DATA is not as long as Content-Length says")
    if flags & END_STREAM and not stream.got_head:
        raise StreamFailed(stream.id, PROTOCOL_ERROR, "an interim answer that ends the stream")
