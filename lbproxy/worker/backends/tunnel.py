"""A stream to a backend that speaks another protocol now (RFC 8441): the backend's end of a relay.

Takes the place of the BackendStream that it was among its connection's streams; for the relay it is a StreamEnd. The
stream lasts until both sides have ended it, or PARTING_S behind the relay's end; then it is cancelled.
"""

import socket

from lbproxy.wire.http2.hpack import Fields
from lbproxy.worker.backends.http2_connection import SharedConnection
from lbproxy.worker.backends.stream_owner import Loss
from lbproxy.worker.io.reactor import NEVER
from lbproxy.worker.io.stream_end import PARTING_S, StreamListener


class Tunnel:
    __slots__ = (
        "_connection",
        "_has_hung_up",
        "_id",
        "_is_gone",
        "_listener",
        "_room_is_planned",
        "deadline",
        "has_ended",
        "queued_at",
    )

    def __init__(self, connection: SharedConnection, stream_id: int, *, has_ended: bool) -> None:
        self._connection = connection
        self._id = stream_id
        self._listener: StreamListener | None = None
        self._has_hung_up = False
        self._is_gone = False
        self._room_is_planned = False
        self.has_ended = has_ended  # the backend's side
        self.deadline = self.queued_at = NEVER

    # As its relay sees it

    @property
    def sock(self) -> socket.socket:
        return self._connection.transport.sock

    @property
    def pending(self) -> int:
        if self._is_gone:
            return 0
        return self._connection.pending(self._id) or int(self._connection.is_congested)

    def attach(self, listener: StreamListener) -> None:
        self._listener = listener

    def send(self, data: bytes) -> None:
        if not self._is_gone:
            self._connection.put(self._id, data)

    def hang_up(self) -> None:
        if not (self._is_gone or self._has_hung_up):
            self._has_hung_up = True
            self._connection.put(self._id, b"", end=True)

    def credit(self, size: int) -> None:
        if size and not self._is_gone:
            self._connection.credit(self._id, size)

    def close(self, *, reset: bool) -> None:
        self._listener = None
        if reset:
            self._leave()
        elif not self._leave_if_done():
            self._connection.reactor.arm(self, PARTING_S)

    # Told by the connection (http2_connection.StreamOwner)

    def on_head(self, fields: Fields, end: bool) -> None:
        """No head means anything here."""

    def on_data(self, data: bytes, size: int, end: bool) -> None:
        self.has_ended = self.has_ended or end
        self.credit(size if self._listener is None else size - len(data))
        if data and self._listener is not None:
            self._listener.on_stream_data(data)
        if end and self._listener is not None:
            self._listener.on_stream_end()
        elif end:
            self._leave_if_done()

    def on_trailers(self, fields: Fields) -> None:
        self.on_data(b"", 0, True)

    def on_writable(self) -> None:
        """What follows must not write at once: the connection is about to send."""
        if not self._room_is_planned:
            self._room_is_planned = True
            self._connection.reactor.defer(self._find_room)

    def _find_room(self) -> None:
        self._room_is_planned = False
        if self._listener is not None:
            self._listener.on_stream_room()
        else:
            self._leave_if_done()

    def on_lost(self, loss: Loss) -> None:
        self._is_gone = True
        if self._listener is not None:
            self._listener.on_stream_gone()
        else:
            self._leave()

    # The end

    def _leave_if_done(self) -> bool:
        """Our END_STREAM waits for the backend's: hypercorn 0.18 breaks off the connection where one comes behind the
        Close of a WebSocket."""
        if self.has_ended:
            self.hang_up()
        if self._is_gone or (self.has_ended and not self.pending):
            self._leave()
            return True
        return False

    def _leave(self) -> None:
        """What is not over is cancelled."""
        self._is_gone = True
        self._connection.reactor.disarm(self)
        self._connection.leave(self._id)

    def on_deadline(self) -> None:
        self._leave()

    def abort(self) -> None:
        """A mistake of ours costs this stream."""
        self._listener = None
        self._leave()
