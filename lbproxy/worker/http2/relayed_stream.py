"""A stream whose request was answered with a switch of protocols (RFC 8441): the client's end of a relay.

Stands in its connection's `streams` in the place of the StreamClient that it was, and has what the connection calls
there; for the relay it is a StreamEnd. When the relay is over the stream still lasts until its last bytes and its
END_STREAM are out, and the client has ended it, too, or PARTING_S is over.
"""

import os
import socket
from base64 import b64encode
from typing import Any, Protocol

from lbproxy.wire.http2.errors import CANCEL, NO_ERROR
from lbproxy.worker.io.reactor import NEVER, Reactor
from lbproxy.worker.io.stream_end import PARTING_S, StreamListener
from lbproxy.worker.leases.drain import Lease


def new_key() -> bytes:
    """The Sec-WebSocket-Key of a handshake with the backend (RFC 6455, 4.1)."""
    return b64encode(os.urandom(16))


class Carrier(Protocol):
    """The connection of the stream."""

    sock: socket.socket

    @property
    def reactor(self) -> Reactor: ...
    def pending(self, stream_id: int) -> int: ...
    def send_data(self, stream_id: int, payload: bytes, *, end: bool) -> None: ...
    def reset(self, stream_id: int, code: int) -> None: ...
    def credit(self, stream_id: int, size: int) -> None: ...
    def parted(self, stream: Any) -> None:
        """The stream is over: it leaves `streams`."""


class RelayedStream:
    __slots__ = (
        "_carrier",
        "_has_hung_up",
        "_is_over",
        "_listener",
        "_room_is_planned",
        "_waits_for_room",
        "deadline",
        "gone",
        "has_ended",
        "lease",
        "number",
        "queued_at",
        "since",
    )

    def __init__(self, carrier: Carrier, number: int, lease: Lease | None, since: float, *, has_ended: bool) -> None:
        self._carrier = carrier
        self._listener: StreamListener | None = None
        self._has_hung_up = False
        self._is_over = False
        self._waits_for_room = False
        self._room_is_planned = False
        self.number = number
        self.lease = lease
        self.since = since
        self.has_ended = has_ended  # the client's side
        self.gone = ""  # why nothing more comes or goes
        self.deadline = self.queued_at = NEVER

    def __repr__(self) -> str:
        state = self.gone or ("parting" if self._listener is None else "relayed")
        return f"<stream {self.number}, {state}, {self.pending} to send>"

    # As its connection sees it

    def received(self, data: bytes, *, end: bool) -> None:
        self.has_ended = self.has_ended or end
        listener = self._listener
        if listener is None:
            self.credit(len(data))
        elif data:
            listener.on_stream_data(data)
        if not end:
            return
        if self._listener is not None:
            self._listener.on_stream_end()
        else:
            self._part_if_done()

    def end(self, trailers: list[bytes]) -> None:
        """Trailers mean nothing here."""
        self.received(b"", end=True)

    def leave(self, why: str) -> None:
        if self.gone:
            return
        self.gone = why
        if self._listener is not None:
            self._listener.on_stream_gone()
        else:
            self._part()

    def rouse(self) -> None:
        """Something has left, perhaps of this stream. What follows must not write at once: the connection is about to
        send."""
        if not self._room_is_planned and (self._waits_for_room or self._listener is None):
            self._room_is_planned = True
            self._carrier.reactor.defer(self._find_room)

    def _find_room(self) -> None:
        self._room_is_planned = False
        if self._listener is None:
            self._part_if_done()
        elif self._waits_for_room:
            self._waits_for_room = self.pending > 0
            self._listener.on_stream_room()

    # As its relay sees it (io/stream_end.py, StreamEnd)

    @property
    def sock(self) -> socket.socket:
        return self._carrier.sock

    @property
    def pending(self) -> int:
        return 0 if self.gone else self._carrier.pending(self.number)

    def attach(self, listener: StreamListener) -> None:
        self._listener = listener

    def send(self, data: bytes) -> None:
        if not self.gone:
            self._carrier.send_data(self.number, data, end=False)
            self._waits_for_room = self.pending > 0

    def hang_up(self) -> None:
        if not (self.gone or self._has_hung_up):
            self._has_hung_up = True
            self._carrier.send_data(self.number, b"", end=True)

    def credit(self, size: int) -> None:
        if size and not self.gone:
            self._carrier.credit(self.number, size)

    def close(self, *, reset: bool) -> None:
        self._listener = self.lease = None
        if reset and not self.gone:
            self._carrier.reset(self.number, CANCEL)
            self.gone = "the backend has broken off"
        self.hang_up()
        if not self._part_if_done():
            self._carrier.reactor.arm(self, PARTING_S)

    # The end

    def _part_if_done(self) -> bool:
        if self.gone or (self.has_ended and not self.pending):
            self._part()
        return self._is_over

    def on_deadline(self) -> None:
        """The client has not ended its side (RFC 9113, 8.1), or has not taken ours."""
        if not self.gone:
            self._carrier.reset(self.number, CANCEL if self.pending else NO_ERROR)
        self._part()

    def abort(self) -> None:
        """A mistake of ours costs this stream."""
        self._listener = None
        self.on_deadline()

    def _part(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._carrier.reactor.disarm(self)
            self.gone = self.gone or "over"
            self._carrier.parted(self)
