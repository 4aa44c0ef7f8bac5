"""One HTTP/2 connection, either role: bytes in, calls of its owner out; calls of its owner in, bytes out (RFC 9113).

Knows frames, streams and windows. Knows no socket and no clock (time is an argument), and nothing of what a field
means, but for `:status` of an interim answer. A stream ends here when both sides have ended it, or one has reset it.

    feed(data, now) -> owner.on_head, on_data, on_trailers, on_reset, on_failed ...
    send_head, send_data, reset, credit, ping, goaway -> take()
"""

from collections.abc import Callable
from typing import Final

from lbproxy.wire.http2 import flood, frames
from lbproxy.wire.http2.errors import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ConnectionFailed,
    NoStreams,
    StreamFailed,
)
from lbproxy.wire.http2.flood import Flood
from lbproxy.wire.http2.frames import ACK, END_STREAM, HAS_PRIORITY, LARGEST_ID, PADDED
from lbproxy.wire.http2.header_blocks import HeaderBlocks, depends_on, unpadded
from lbproxy.wire.http2.hpack import HARD_FACTOR, Decoder, Fields
from lbproxy.wire.http2.owner import Owner
from lbproxy.wire.http2.peer_settings import LocalSettings, PeerSettings
from lbproxy.wire.http2.stream import Stream
from lbproxy.wire.http2.stream_table import StreamTable, check_block

_USUAL_FLAGS: Final = frames.END_HEADERS | PADDED | HAS_PRIORITY


class Http2Connection:
    def __init__(self, owner: Owner, settings: LocalSettings, *, client: bool = False) -> None:
        """`client`: our role."""
        self.peer = PeerSettings()
        self.failed = False
        self.is_left = False  # the peer has sent GOAWAY: it takes no further stream
        self.last_id = 0  # the newest stream of the peer's that was accepted
        self._owner = owner
        self._settings = settings
        self._is_client = client
        self._table = StreamTable(settings, owner.on_writable)
        self.output = self._table.output
        self.streams = self._table.open
        self._decoder = Decoder(settings.header_table_bytes, settings.header_list_bytes)
        self.blocks = HeaderBlocks(HARD_FACTOR * settings.header_list_bytes)
        self._flood = Flood(of_backend=client)
        self._now = 0.0
        self.kept = b""  # of a frame that is not whole yet, or what stands behind a pause
        self.is_paused = False
        self._awaits_preface = not client
        self.awaits_settings = True
        self._accepted_id = LARGEST_ID  # our GOAWAY: newer streams are refused
        self._has_no_table = False  # the peer's decoder was told that our encoder needs no table

    def __repr__(self) -> str:
        role = "client" if self._is_client else "server"
        return f"<Http2Connection {role}, {len(self.streams)} streams, {self.output.unsent_bytes} bytes unsent>"

    # What the owner asks for.

    def begin(self) -> None:
        """The preface of our side."""
        first = self._settings.first_frame(client=self._is_client)
        self.output.control(frames.PREFACE + first if self._is_client else first)
        more = self._settings.connection_window_bytes - frames.DEFAULT_WINDOW_BYTES
        if more > 0:
            self.output.control(frames.window_update(0, more))

    def take(self) -> bytes:
        return self.output.take()

    def send_head(self, stream_id: int, block: bytes, *, end: bool = False) -> None:
        """A head, interim head or trailers. Nothing for a stream that is gone."""
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.local_ended:
            self.output.head(stream, block, end)

    def send_data(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.local_ended:
            self.output.data(stream, data, end)

    def pending(self, stream_id: int) -> int:
        """Bytes of the stream that wait for a window or for their turn."""
        stream = self.streams.get(stream_id)
        return 0 if stream is None else stream.queued_bytes

    def expect(self, stream_id: int, length: int) -> None:
        """The head that has just come announces so much DATA: more or less of it is a stream error."""
        if (stream := self.streams.get(stream_id)) is not None:
            stream.expected_bytes = length

    def reset(self, stream_id: int, code: int) -> None:
        """End the stream at once. Its data that waits is dropped, and what still comes of it is read over."""
        if stream_id in self.streams:
            self._table.reset(stream_id, code)

    def credit(self, stream_id: int, size: int) -> None:
        """The owner has used `size` bytes that on_data told of. A stream that is gone has been credited as a whole."""
        if (stream := self.streams.get(stream_id)) is not None:
            self._table.credit(stream, size)

    def ping(self, payload: bytes) -> None:
        self.output.control(frames.ping(payload, ack=False))

    def goaway(self, last_id: int, code: int, debug: bytes = b"") -> None:
        """Streams of the peer's that are newer than `last_id` are refused from now on."""
        self._accepted_id = min(self._accepted_id, last_id)
        self.output.control(frames.goaway(last_id, code, debug))

    def open_stream(self) -> int:
        """A new stream to a backend; its head must follow before another stream is opened. Raises NoStreams."""
        stream_id = self._table.ids.next()
        if self.is_left or self.failed or stream_id is None or len(self.streams) >= self.peer.max_streams:
            raise NoStreams(f"{self!r} takes no further stream")
        self._table.ids.open(stream_id)
        self._table.add(stream_id, self.peer.window_bytes)
        return stream_id

    def rest(self) -> None:
        """The connection is idle: what only makes it quicker is given back."""
        self._decoder.forget()

    # What comes in.

    def feed(self, data: bytes, now: float) -> None:
        """Raises ConnectionFailed; the GOAWAY that tells the peer is in the output then.

        `is_paused` behind it: more heads have come than one turn may cost. The rest is read by feed(b"", now).
        """
        if self.failed:
            return
        self._now = now
        self.is_paused = False
        try:
            self._read(self.kept + data if self.kept else data)
        except ConnectionFailed as failure:
            self.failed = True
            self.kept = b""
            self.output.control(frames.goaway(self.last_id, failure.code, failure.reason.encode()))
            raise

    def _read(self, data: bytes) -> None:
        at = 0
        if self._awaits_preface and (at := self._read_preface(data)) < len(frames.PREFACE):
            self.kept = data
            return
        size = len(data)
        most = self._settings.max_frame_bytes
        unpack = frames.unpack_header
        heads = 0
        while size - at >= 9:
            word, flags, stream_id = unpack(data, at)
            length = word >> 8
            if length > most:
                raise ConnectionFailed(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = at + 9 + length
            if end > size:
                break
            kind = word & 0xFF
            payload = data[at + 9 : end]
            at = end
            if self.awaits_settings or self.blocks.open_stream:
                self._check_order(kind, flags, stream_id & LARGEST_ID)
            try:
                if kind < len(_READERS):
                    _READERS[kind](self, flags, stream_id & LARGEST_ID, payload)
                else:
                    self._flood.count(flood.UNKNOWN, self._now)
            except StreamFailed as failure:
                self._fail(failure)
            if kind == frames.HEADERS:
                heads += 1 + (length >> 10)
                if heads >= self._flood.heads_at_once and not self._is_client:
                    self.is_paused = at < size
                    break
        self.kept = data[at:]

    def _read_preface(self, data: bytes) -> int:
        begun = data[: len(frames.PREFACE)]
        if not frames.PREFACE.startswith(begun):
            raise ConnectionFailed(PROTOCOL_ERROR, "this is not the preface of HTTP/2")
        self._awaits_preface = len(begun) < len(frames.PREFACE)
        return len(begun)

    def _check_order(self, kind: int, flags: int, stream_id: int) -> None:
        if self.awaits_settings:
            if kind != frames.SETTINGS or flags & ACK:
                raise ConnectionFailed(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self.awaits_settings = False
        elif kind != frames.CONTINUATION or stream_id != self.blocks.open_stream:
            raise ConnectionFailed(PROTOCOL_ERROR, "a header block is broken off")

    def _fail(self, failure: StreamFailed) -> None:
        """Reset the stream; where there is none that could be reset, it is the connection that fails."""
        if failure.stream_id not in self.streams:
            raise ConnectionFailed(failure.code, failure.reason) from None
        self._flood.count(flood.RESET_BY_US, self._now)
        self._table.reset(failure.stream_id, failure.code)
        self._owner.on_failed(failure)

    def _judge(self, kind: int, stream_id: int, size: int = 0) -> None:
        self._table.judge(kind, stream_id)
        if size < flood.FEW_BYTES:  # larger DATA is the rest of an upload that we did not want, within its window
            self._flood.count(flood.UNKNOWN, self._now)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._table.received(size)
        if flags & PADDED:
            payload = unpadded(payload)
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_ended:
            self._table.credit_connection(size)
            self._judge(frames.DATA, stream_id, size)
            return
        stream.receive_bytes -= size
        stream.held_bytes += size
        if stream.receive_bytes < 0:
            raise StreamFailed(stream_id, FLOW_CONTROL_ERROR, "more data than the stream's window")
        if not stream.got_head:
            raise StreamFailed(stream_id, PROTOCOL_ERROR, "DATA before the head")
        end = flags & END_STREAM != 0
        if not end and not payload:
            self._flood.count(flood.EMPTY_DATA, self._now)
        if stream.expected_bytes >= 0:
            stream.expected_bytes -= len(payload)
            if stream.expected_bytes < 0 or (end and stream.expected_bytes):
                raise StreamFailed(stream_id, PROTOCOL_ERROR, "DATA is not as long as Content-Length says")
        if end:
            self._table.end_remote(stream)
        self._owner.on_data(stream_id, payload, size, end)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        block: bytes | None = payload
        if flags & _USUAL_FLAGS == frames.END_HEADERS:
            self.blocks.flags = flags
        else:
            block = self.blocks.begin(flags, stream_id, payload)
        if block is not None:
            self._on_block(stream_id, block)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self.blocks.go_on(flags, payload)
        self._flood.count(flood.FRAGMENT, self._now)
        if block is not None:
            self._on_block(stream_id, block)

    def _on_block(self, stream_id: int, block: bytes) -> None:
        fields = self._decoder.decode(block)
        flags = self.blocks.flags
        stream = self.streams.get(stream_id)
        if stream is None and not self._is_client and self._table.ids.is_new(stream_id):
            if (stream := self._accept(stream_id)) is None:
                return
        elif stream is None or stream.remote_ended:
            self._judge(frames.HEADERS, stream_id)
            return
        end = flags & END_STREAM != 0
        trailers = stream.got_head
        if not trailers:
            stream.got_head = not self._is_client or not _is_interim(fields)
        check_block(stream, flags, trailers)
        if end:
            self._table.end_remote(stream)
        if self._decoder.too_large:
            self._owner.on_large_head(stream_id, fields, end)
        elif trailers:
            self._owner.on_trailers(stream_id, fields)
        else:
            self._owner.on_head(stream_id, fields, end)

    def _accept(self, stream_id: int) -> Stream | None:
        """A new stream of a client; None when it is refused."""
        self._table.ids.open(stream_id)
        if len(self.streams) >= self._settings.max_streams or stream_id > self._accepted_id:
            self._table.reset(stream_id, REFUSED_STREAM)
            self._flood.count(flood.RESET_BY_US, self._now)
            self._owner.on_failed(StreamFailed(stream_id, REFUSED_STREAM, "no further stream is taken"))
            return None
        self.last_id = stream_id
        return self._table.add(stream_id, self.peer.window_bytes)

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PRIORITY on no stream")
        self._flood.count(flood.PRIORITY, self._now)
        if len(payload) != 5:
            raise StreamFailed(stream_id, FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} bytes")
        if depends_on(payload) == stream_id:
            raise StreamFailed(stream_id, PROTOCOL_ERROR, "a stream that depends on itself")

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, f"RST_STREAM of {len(payload)} bytes")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._judge(frames.RST_STREAM, stream_id)
            return
        self._table.drop(stream)
        self._flood.count(flood.RESET_BY_PEER, self._now)
        self._owner.on_reset(stream_id, int.from_bytes(payload, "big"))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            self._flood.count(flood.UNKNOWN, self._now)
            if payload:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "an ACK of SETTINGS with a payload")
            return
        if len(payload) % 6:
            raise ConnectionFailed(FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        self._flood.count(flood.SETTINGS, self._now)
        peer, output = self.peer, self.output
        before = peer.window_bytes
        peer.apply(payload, from_client=not self._is_client)
        output.control(frames.SETTINGS_ACK)
        output.max_frame_bytes = peer.max_frame_bytes
        if peer.header_table_bytes < 4096 and not self._has_no_table:
            self._has_no_table = output.owes_table_update = True
        grown = peer.window_bytes - before
        if grown:
            self._table.grow(grown)
        self._owner.on_settings()

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFailed(PROTOCOL_ERROR, "PUSH_PROMISE")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFailed(FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        if flags & ACK:
            self._flood.count(flood.UNKNOWN, self._now)
            self._owner.on_ping_ack(payload)
        else:
            self._flood.count_ping(self.output.window_bytes + self._table.receive_bytes, self._now)
            self.output.control(frames.ping(payload, ack=True))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFailed(FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        self._flood.count(flood.UNKNOWN, self._now)
        last_id = int.from_bytes(payload[:4], "big") & LARGEST_ID
        self.is_left = True
        self._owner.on_goaway(last_id, int.from_bytes(payload[4:8], "big"), payload[8:])
        if self._is_client:
            for stream in [stream for stream in self.streams.values() if stream.id > last_id]:
                self._table.drop(stream)
                self._owner.on_reset(stream.id, REFUSED_STREAM)

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} bytes")
        size = int.from_bytes(payload, "big") & frames.LARGEST_WINDOW_BYTES
        self._flood.count_update(size, self._now, waiting=self.output.queued_bytes > 0)
        if not stream_id:
            if not size:
                raise ConnectionFailed(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            self.output.window_bytes += size
            if self.output.window_bytes > frames.LARGEST_WINDOW_BYTES:
                raise ConnectionFailed(FLOW_CONTROL_ERROR, "the connection's window is too large")
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self._judge(frames.WINDOW_UPDATE, stream_id)
        elif not size:
            raise StreamFailed(stream_id, PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        elif stream.send_bytes + size > frames.LARGEST_WINDOW_BYTES:
            raise StreamFailed(stream_id, FLOW_CONTROL_ERROR, "the stream's window is too large")
        else:
            stream.send_bytes += size
            self.output.wake(stream)


def _is_interim(fields: Fields) -> bool:
    """Whether a backend's head looks like an interim one: a guess, which backend_heads.py checks."""
    return bool(fields) and fields[0][0] == b":status" and fields[0][1][:1] == b"1"


_READERS: Final[tuple[Callable[[Http2Connection, int, int, bytes], None], ...]] = (
    Http2Connection._on_data,
    Http2Connection._on_headers,
    Http2Connection._on_priority,
    Http2Connection._on_rst_stream,
    Http2Connection._on_settings,
    Http2Connection._on_push_promise,
    Http2Connection._on_ping,
    Http2Connection._on_goaway,
    Http2Connection._on_window_update,
    Http2Connection._on_continuation,
)
