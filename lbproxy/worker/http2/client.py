"""One HTTP/2 connection of a client: a stream for each request, and the end without a loss.

Knows its streams and what the wire connection tells of them. What a stream asks for is served by the lanes.
"""

import socket
from typing import Any, Protocol

from lbproxy.model import ListenerView
from lbproxy.wire.head import Refused
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.http2.connection import Http2Connection
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.errors import (
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NAMES,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ConnectionFailed,
    MalformedMessage,
    StreamFailed,
    name_of,
)
from lbproxy.wire.http2.frames import CONTINUATION, HEADERS
from lbproxy.wire.http2.hpack import Fields
from lbproxy.wire.http2.peer_settings import LocalSettings
from lbproxy.wire.http2.request import CheckedFields, spell_request, trailers_of
from lbproxy.wire.lines import bad_request
from lbproxy.worker.context import Context
from lbproxy.worker.handover import Handover
from lbproxy.worker.http2.call import begin_call
from lbproxy.worker.http2.departure import Departure
from lbproxy.worker.http2.descriptor import Http2Descriptor, share_of
from lbproxy.worker.http2.entry import begin
from lbproxy.worker.http2.express import ExpressStream
from lbproxy.worker.http2.read_head import ReadHead, StreamHeads, read_again, read_head
from lbproxy.worker.http2.relayed_stream import RelayedStream, new_key
from lbproxy.worker.http2.stream import StreamClient
from lbproxy.worker.io.reactor import NEVER, Reactor
from lbproxy.worker.leases.drain import Lease

MOST_STREAMS = 100  # open at a time
# An exchange ends a moment after its stream, and a client may open the next stream at once: Chromium does not ask again
# for a picture that was refused. What a client has reset counts, too: its backend may be at work.
MOST_EXCHANGES = 2 * MOST_STREAMS
_CONNECT = (b":method", b"CONNECT")
_OF_HEADS = (bytes((HEADERS,)), bytes((CONTINUATION,)))  # the types of their frames


class Lanes(Protocol):
    """What an HTTP/2 connection asks of the worker's lanes."""

    context: Context
    reactor: Reactor
    encoded_lines: EncodedLines
    checked_fields: CheckedFields
    stream_heads: StreamHeads
    off: bool

    def serve_stream(
        self, connection: Any, stream: StreamClient, raw: bytes, refused: Refused | None = None
    ) -> None: ...
    def go_on_with_stream(self, connection: Any, stream: StreamClient, raw: bytes, handover: Handover) -> None: ...
    def closed(self, record: Any) -> None: ...


class Http2Client(Http2Descriptor):
    """A record of the lanes, and the owner of its wire connection."""

    __slots__ = (
        "_early",
        "_idle_since",
        "_midway_since",
        "departure",
        "facts",
        "lanes",
        "read_head",
        "since",
        "streams",
        "view",
    )

    def __init__(
        self, lanes: Lanes, sock: socket.socket, view: ListenerView, facts: ClientFacts, early: bytes = b""
    ) -> None:
        """`early`: received already."""
        local = LocalSettings(max_streams=MOST_STREAMS, header_list_bytes=view.settings.limits.header_bytes)
        super().__init__(lanes.reactor, sock, Http2Connection(self, local))
        self.lanes = lanes
        self.view = view
        self.facts = facts
        self.since = self._idle_since = lanes.reactor.now
        self.streams: dict[int, StreamClient | ExpressStream | RelayedStream] = {}
        self.departure: Departure | None = None
        self.read_head: ReadHead | None = None  # the last one
        self._midway_since = NEVER  # when a head began that is not complete yet
        self._early = early

    def __repr__(self) -> str:
        going = "" if self.departure is None else f", departure {self.departure.stage.value}"
        return f"<HTTP/2 connection {self.fd}, {len(self.streams)} streams, unsent: {len(self.unsent)}{going}>"

    @property
    def is_wanted(self) -> bool:
        """Its listener still takes HTTP/2."""
        protocols = self.view.settings.protocols
        return "h2" in protocols or "h2c" in protocols

    @property
    def now(self) -> float:
        return self.reactor.now

    @property
    def encoded_lines(self) -> EncodedLines:
        return self.lanes.encoded_lines

    def begin(self) -> None:
        self.wire.begin()
        self.reactor.arm(self, self.view.settings.timeouts.header_s)
        self.listen()
        early, self._early = self._early, b""
        if early:
            self.on_bytes(early)
        self.flush()

    def on_bytes(self, data: bytes) -> None:
        wire = self.wire
        block, size = wire.blocks.open_stream, len(wire.kept) + len(data)
        try:
            wire.feed(data, self.reactor.now)
        except ConnectionFailed as exc:
            self._count_reset("ours_", exc.code)
            self._leave_streams(f"the connection broke a rule of HTTP/2: {exc.reason}")
            self.close_gently()
        if wire.blocks.open_stream != block or (not block and len(wire.kept) < size):
            self._midway_since = NEVER  # what is not whole has begun just now
        if wire.is_paused:
            self.reactor.defer(self._go_on)
        elif wire.kept or wire.blocks.open_stream:
            self._note_midway()
        else:
            self._midway_since = NEVER
        self.plan_flush()

    def _go_on(self) -> None:
        """Others have had their turn."""
        if not self.is_closed:
            self.on_bytes(b"")

    def _note_midway(self) -> None:
        """A head, or a frame of a connection without streams, must be complete in time. The body of a stream has the
        stream's own limit."""
        wire = self.wire
        is_head = wire.blocks.open_stream or wire.kept[3:4] in _OF_HEADS
        if self._midway_since == NEVER and (is_head or not self.streams):
            self._midway_since = self.reactor.now
            self.reactor.arm(self, self.view.settings.timeouts.header_s)

    def on_room(self) -> None:
        for stream in list(self.streams.values()):
            stream.rouse()

    @property
    def read_bytes(self) -> int:
        return share_of(len(self.streams))

    # What a stream asks for (stream.Carrier)

    def reset(self, stream_id: int, code: int) -> None:
        self._count_reset("ours_", code)
        self.wire.reset(stream_id, code)
        self.plan_flush()

    def finished(self, stream: StreamClient) -> None:
        """The exchange is over: nothing more is read of the request, and nothing sent."""
        del self.streams[stream.number]
        if self.is_closed:
            return
        reply = stream.reply
        if reply is None or not reply.ended:
            stream.reset(INTERNAL_ERROR)
        elif not stream.has_ended:  # an early answer: the rest of the request is of no use (RFC 9113, 8.1)
            stream.reset(NO_ERROR)
        self._note_idle()

    def relayed(self, stream: StreamClient) -> RelayedStream:
        """The stream is a relay's from now on."""
        relayed = RelayedStream(self, stream.number, stream.lease, stream.since, has_ended=stream.has_ended)
        self.streams[stream.number] = relayed
        return relayed

    def parted(self, stream: RelayedStream) -> None:
        """Its relay is over."""
        del self.streams[stream.number]
        if not self.is_closed:
            self._note_idle()

    def _note_idle(self) -> None:
        if not self.streams:
            self.stream_is_over()

    def stream_is_over(self) -> None:
        """The last one."""
        self._idle_since = self.reactor.now
        if self.departure is not None:
            self.close_if_done()

    def to_task(self, stream: ExpressStream, handover: Handover) -> None:
        """A stream leaves the express lane."""
        client = self.streams[stream.number] = StreamClient(self, stream.number, ended=False)
        if stream.body and handover.sent is None:
            client.received(stream.body, end=False)
        if stream.has_ended:
            client.end(list(stream.trailers))
        if stream.gone:
            client.leave(stream.gone)
        self.lanes.go_on_with_stream(self, client, stream.raw, handover)

    def begin_call(self, stream: ExpressStream, lease: Lease) -> None:
        begin_call(stream, lease)

    # What the client says (owner of the wire connection)

    def on_head(self, stream_id: int, fields: Fields, end: bool) -> None:
        if len(self.streams) >= MOST_EXCHANGES:
            raise StreamFailed(stream_id, REFUSED_STREAM, "too many streams")
        self._begin_stream(stream_id, fields, end=end)

    def _begin_stream(self, stream_id: int, fields: Fields, *, end: bool) -> None:
        """Where every request begins."""
        read = self.read_head
        if read is None or read.fields is not fields or read.view is not self.view or read.ends is not end:
            try:
                key = new_key() if _CONNECT in fields else b""
                raw = spell_request(fields, end=end, websocket_key=key, checked=self.lanes.checked_fields)
            except MalformedMessage as exc:
                raise StreamFailed(stream_id, PROTOCOL_ERROR, exc.reason) from None
            read = ReadHead(fields, self.view, raw, ends=end)
            self.read_head = None if key else read
            if self.lanes.off:
                read.why = "off"
            else:
                read_head(read, self.lanes.stream_heads)
        elif read.cached is None and not read.why:
            read_again(read, self.lanes.stream_heads, self.facts)
        if not end:
            for name, value in fields:
                if name == b"content-length":
                    self.wire.expect(stream_id, int(value))
        if read.why:
            self._serve(stream_id, read.raw, end=end)
        else:
            begin(self, stream_id, read)

    def on_large_head(self, stream_id: int, fields: Fields, end: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:  # its trailers
            raise StreamFailed(stream_id, ENHANCE_YOUR_CALM, "its trailers are over the limit of a head")
        if len(self.streams) >= MOST_EXCHANGES:
            raise StreamFailed(stream_id, REFUSED_STREAM, "too many streams")
        try:
            raw = spell_request(fields, end=True)  # for the log
        except MalformedMessage:
            raw = b""
        refused = bad_request(f"the head is over {self.view.settings.limits.header_bytes} bytes", 431)
        self._serve(stream_id, raw, end=end, refused=refused)

    def _serve(self, stream_id: int, raw: bytes, *, end: bool, refused: Refused | None = None) -> None:
        stream = self.streams[stream_id] = StreamClient(self, stream_id, ended=end)
        self.lanes.serve_stream(self, stream, raw, refused)

    def on_data(self, stream_id: int, data: bytes, size: int, end: bool) -> None:
        """`size`: what the data counts in the windows, with its padding."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.gone:
            return  # reset by us a moment ago
        if size > len(data):
            self.wire.credit(stream_id, size - len(data))
        stream.received(data, end=end)

    def on_trailers(self, stream_id: int, fields: Fields) -> None:
        stream = self.streams.get(stream_id)
        if stream is None or stream.gone:
            return
        try:
            stream.end(trailers_of(fields))
        except MalformedMessage as exc:
            raise StreamFailed(stream_id, PROTOCOL_ERROR, f"its trailers are malformed: {exc.reason}") from None

    def on_reset(self, stream_id: int, code: int) -> None:
        self._count_reset("", code)
        if (stream := self.streams.get(stream_id)) is not None:
            stream.leave(f"the client reset the stream: {name_of(code)}")

    def on_failed(self, failure: StreamFailed) -> None:
        """The stream is reset already."""
        self._count_reset("ours_", failure.code)
        if (stream := self.streams.get(failure.stream_id)) is not None:
            stream.leave(failure.reason)

    def on_writable(self, stream_id: int) -> None:
        if (stream := self.streams.get(stream_id)) is not None:
            stream.rouse()

    def on_goaway(self, last_id: int, code: int, debug: bytes) -> None:
        """The client opens no further stream. It closes the connection itself."""

    def on_ping_ack(self, payload: bytes) -> None:
        if self.departure is not None:
            self.departure.on_ping_ack(payload)

    def on_settings(self) -> None:
        """The wire connection keeps them."""

    # Time, and the end

    def on_deadline(self) -> None:
        timeouts, now = self.view.settings.timeouts, self.reactor.now
        if self.closing:
            self.close("the connection did not end in time")
        elif now >= self._midway_since + timeouts.header_s or (not self.streams and self.wire.awaits_settings):
            self._end("a request head was not complete in time")
        elif self.streams:
            self.reactor.arm(self, timeouts.idle_s if self._midway_since == NEVER else timeouts.header_s)
        elif (left_s := self._idle_since + timeouts.idle_s - now) > 0:
            self.wire.rest()
            self.read_head = None
            self.reactor.arm(self, left_s)
        else:
            self._end("")

    def _end(self, why: str) -> None:
        """`why`: for the streams, if there are any."""
        self._leave_streams(why)
        self.goaway(NO_ERROR)
        self.close_gently()

    def goaway(self, code: int, last_id: int | None = None) -> None:
        """`last_id`: newer streams are refused; None: of the newest one that was not refused."""
        self.wire.goaway(self.wire.last_id if last_id is None else last_id, code)
        self.plan_flush()

    def ping(self, payload: bytes) -> None:
        self.wire.ping(payload)
        self.plan_flush()

    def stop(self, in_s: float = 0.0) -> None:
        """The worker stops, or the listener has gone. `in_s`: when an idle connection is told of it."""
        if self.closing:
            return
        if self.departure is None:
            self.departure = Departure(self.reactor, self, in_s)
        elif not in_s:
            self.departure.begin()

    def close_if_done(self) -> None:
        if self.departure is not None and self.departure.is_final and not self.streams:
            self.close_gently()

    def on_closed(self, why: str) -> None:
        if self.departure is not None:
            self.departure.forget()
        self._leave_streams(why)
        self.lanes.closed(self)

    def _leave_streams(self, why: str) -> None:
        for stream in list(self.streams.values()):
            stream.leave(why)

    def _count_reset(self, by: str, code: int) -> None:
        why = NAMES[code].lower() if code < len(NAMES) else "unknown"
        self.lanes.context.tally.note("http2_reset", self.view.settings.name, by + why)
