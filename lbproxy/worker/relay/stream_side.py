"""A side of a relay that is one stream of an HTTP/2 connection: DATA both ways, no socket of its own.

Same surface as Side for the relay and for the other side. Memory is bounded as there: while the stream's data waits for
a window, the other side is not read; while that cannot be written, the stream's own window stays closed.
"""

from lbproxy.worker.io.reactor import NEVER
from lbproxy.worker.io.stream_end import StreamEnd
from lbproxy.worker.relay.side import Relay, Side

_WAITS = b"waits"  # the outbox of a stream whose data waits in its connection


class StreamSide(Side):
    __slots__ = ("_owed_bytes", "_stream")

    def __init__(self, relay: Relay, stream: StreamEnd) -> None:
        super().__init__(relay, stream.sock)
        self._stream = stream
        self._owed_bytes = 0  # received, and held up by the other side: no window for them yet
        self.ended = stream.has_ended
        stream.attach(self)

    @property
    def is_plain(self) -> bool:
        return False

    # From the peer (io/stream_end.py, StreamListener)

    def on_stream_data(self, data: bytes) -> None:
        self.received += len(data)
        self._owed_bytes += len(data)
        self.deliver(data)
        self.pump()

    def on_stream_end(self) -> None:
        self.ended = True
        self.relay.settle()

    def on_stream_gone(self) -> None:
        self._fail()

    def on_stream_room(self) -> None:
        relay = self.relay
        if not self.outbox:
            return
        if self._stream.pending:
            relay.reactor.arm(self, relay.stall_s)
            return
        self.outbox = b""
        self.other.pump()
        relay.settle()

    def pump(self, is_last: int = 0) -> None:
        """Open the window, unless the other side has bytes that wait."""
        if self._owed_bytes and not self.broken and not self.other.outbox:
            size, self._owed_bytes = self._owed_bytes, 0
            self._stream.credit(size)

    # To the peer

    def put(self, data: bytes, flags: int = 0) -> None:
        if self.broken or not data:
            return
        self._stream.send(data)
        if not (self.outbox or self.broken) and self._stream.pending:
            self.outbox = _WAITS
            self.relay.reactor.arm(self, self.relay.stall_s)
            self.relay.settle()

    def hang_up(self) -> None:
        if not self.outbox and not self.is_shut:
            self.is_shut = True
            self._stream.hang_up()

    def part(self) -> None:
        """The end of the relay tells the peer, without a half-close before it."""

    # The stream's connection is registered, and reads whatever the relay wants

    def watch_first(self) -> None:
        if self.ended:
            self.relay.reactor.defer(self.relay.settle)  # not before the other side is watched

    def watch(self) -> None:
        self.pump()

    def close(self, *, reset: bool) -> None:
        self.ended = self.broken = True
        self.outbox = b""
        if self.queued_at != NEVER:
            self.relay.reactor.disarm(self)
        self._stream.close(reset=reset)
