"""A WebSocket after its 101: a relay that follows the frames, so that it can end the connection politely (DESIGN.md 5).

Knows where frames begin and end in both directions, and the goodbye: the backend is told first, its last words are
relayed, the client gets exactly one Close and a moment to answer it. Bytes of ours go through the same outbox as
relayed ones, at a frame boundary and never after a Close. A close that either side began by itself is left alone.
"""

import os
import socket
from collections.abc import Callable
from enum import IntEnum
from typing import Self

import trio

from lbproxy.policy.goodbye import Manner, manner
from lbproxy.settings import DrainSettings
from lbproxy.wire.websocket import Boundary, FrameTracker, close_frame
from lbproxy.worker.io.reactor import NEVER, Reactor
from lbproxy.worker.io.stream_end import StreamEnd
from lbproxy.worker.relay.relay import Relay, Why
from lbproxy.worker.relay.stream_side import StreamSide

_EMPTY_CLOSE = b"\x88\x00"
_NO_CODE = 1005
_NOT_TOLD = DrainSettings()
_MARGIN_S = 0.5  # our Close goes out this long before the connection would be cut without one


class Phase(IntEnum):
    """The phases of the goodbye, in this order. Each has one deadline."""

    OPEN = 0  # nobody has asked for one
    TELLING = 1  # the backend gets its Close at the client's next frame boundary
    LISTENING = 2  # to the backend's last words
    CLOSING = 3  # the client gets its Close at the backend's next boundary
    ECHO = 4  # the client has it, and may answer
    ALONE = 5  # one side had begun to close by itself, or broke off inside a frame: nothing of ours fits in


class WebSocketRelay(Relay):
    """As Relay. For `on_end` also: `closed_by` ("client", "backend", "proxy"; None: without a Close), `close_code`."""

    __slots__ = (
        "_drain",
        "_phase",
        "_since",
        "_window_ends",
        "closed_by",
        "deadline",
        "dropped",
        "from_backend",
        "from_client",
        "queued_at",
    )

    joins_ends = False  # an end of the backend is not passed on as it comes: a Close of ours may go before it
    passes_resets = False  # an end without a Close is 1006 in any case, and a reset may swallow what was said before

    def __init__(
        self,
        reactor: Reactor,
        client_sock: socket.socket | StreamEnd,
        backend_sock: socket.socket | StreamEnd,
        *,
        stall_s: float,
        on_end: Callable[[Self], None],
    ) -> None:
        super().__init__(reactor, client_sock, backend_sock, stall_s=stall_s, on_end=on_end)
        self.from_client = FrameTracker()
        self.from_backend = FrameTracker()
        self.client.deliver = self._pass_to_backend
        self.backend.deliver = self._pass_to_client
        self.closed_by: str | None = None
        self.dropped = 0  # bytes of frames that nobody was left to hear
        self.deadline = NEVER
        self.queued_at = NEVER
        self._drain = _NOT_TOLD
        self._phase = Phase.OPEN
        self._since = 0.0  # clock reading: when the phase began
        self._window_ends = 0.0

    @property
    def close_code(self) -> int | None:
        if self.closed_by == "proxy":
            return self._drain.close_code
        if self.closed_by is None:
            return None
        return (self.from_client if self.closed_by == "client" else self.from_backend).close_code

    def say_goodbye(self, window_ends: float) -> None:
        """Begin to close; up to `window_ends` (clock reading) messages may be finished. Again: a shorter window."""
        self._window_ends = window_ends
        if self._lease is not None and self._lease.drain is not None:
            self._drain = self._lease.drain
        if self.why is not None:
            return
        if self._phase is not Phase.OPEN:
            self._arm()
            if self._phase is Phase.CLOSING:
                self._seek(b"")
        elif self.from_client.close_seen or self.from_backend.close_seen:
            self._leave_alone()
        else:
            self._enter(Phase.TELLING)
            self.client.deliver = self._tell_backend
            self._tell_backend(b"")
            self.settle()

    # From the client to the backend

    def _pass_to_backend(self, data: bytes) -> None:
        frames = self.from_client
        frames.feed(data)
        self.backend.put(data)
        if frames.close_complete:
            self._note_close("client")

    def _tell_backend(self, data: bytes) -> None:
        """Pass what belongs to the frame in hand, then a Close of ours."""
        frames = self.from_client
        if self.from_backend.close_seen and self._phase is Phase.TELLING:
            self._leave_alone()
            self._pass_to_backend(data)
            return
        passed = frames.feed_until(data, Boundary.FRAME)
        if passed is None or (frames.close_next and self._phase is not Phase.ECHO):
            self.backend.put(data)
            if passed is not None:
                frames.feed(data[passed:])
            if self._phase is Phase.ECHO:
                self.settle()
            elif frames.close_seen:
                self.closed_by = self.closed_by or "client"
                self._leave_alone()
            return
        drain = self._drain
        self.client.deliver = self._hear_client
        self.backend.put(data[:passed] + close_frame(drain.close_code, drain.close_reason, os.urandom(4)))
        self.backend.deliver = self._listen
        if self._phase is Phase.TELLING:
            self._enter(Phase.LISTENING)
        if passed < len(data):
            self._hear_client(data[passed:])

    def _hear_client(self, data: bytes) -> None:
        """The backend has been told: only a Close still means something."""
        self.dropped += len(data)
        self.from_client.feed(data)
        if self.from_client.close_complete:
            self.settle()

    # From the backend to the client

    def _pass_to_client(self, data: bytes) -> None:
        frames = self.from_backend
        frames.feed(data)
        self.client.put(data)
        if frames.close_complete:
            self._note_close("backend")

    def _note_close(self, by: str) -> None:
        """A Close is through. Behind both, a server ends the connection (RFC 6455, 7.1.1); not every server of HTTP/2
        ends the stream that stands for it."""
        self.closed_by = self.closed_by or by
        if isinstance(self.backend, StreamSide) and self.from_client.close_complete:
            self.backend.ended = self.backend.ended or self.from_backend.close_complete
            self.settle()

    def _listen(self, data: bytes) -> None:
        """Pass its last words. Its Close is swallowed: ours takes its place."""
        self._pass_until(data, Boundary.CLOSE)

    def _seek(self, data: bytes) -> None:
        """Pass what belongs to the message in hand, or to the frame, then a Close of ours."""
        self._pass_until(data, self._stop())

    def _pass_until(self, data: bytes, stop: Boundary) -> None:
        frames = self.from_backend
        passed = frames.feed_until(data, stop)
        if passed is None:
            self.client.put(data)
            if frames.close_seen:
                self.closed_by = self.closed_by or "backend"
                self._leave_alone()  # it had begun before it was told
            return
        if passed:
            self.client.put(data[:passed])
        self._close_client()
        self._drop_backend(data[passed:])

    def _drop_backend(self, data: bytes) -> None:
        self.dropped += len(data)
        self.from_backend.feed(data)

    # The goodbye, phase by phase

    def _stop(self) -> Boundary:
        now = trio.current_time()
        messages = manner(now, self._window_ends, self._drain.goodbye_s) is Manner.MESSAGE
        return Boundary.MESSAGE if messages else Boundary.FRAME

    def _close_client(self) -> None:
        """At a frame boundary: its only Close. One that it sent itself meanwhile is answered with its own code."""
        code = self.from_client.close_code
        if code is None:
            self.closed_by = "proxy"
            frame = close_frame(self._drain.close_code, self._drain.close_reason, None)
        else:
            self.closed_by = "client"
            frame = _EMPTY_CLOSE if code == _NO_CODE else close_frame(code, "", None)
        self._enter(Phase.ECHO)
        if self._lease is not None:
            self._lease.closed_at = self._since
        self.backend.deliver = self._drop_backend
        if self.backend.outbox:
            self.backend.abandon()  # else the client would not be read until the backend takes it
        self.client.put(frame)
        if self.client.deliver == self._hear_client:
            self.backend.part()  # its part is over: it need not learn so in the moment in which it is stopped
        self.settle()

    def _leave_alone(self) -> None:
        if self.client.deliver == self._tell_backend:
            self.client.deliver = self._pass_to_backend
        self.backend.deliver = self._pass_to_client
        self._enter(Phase.ALONE)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since = trio.current_time()
        self._arm()

    def _arm(self) -> None:
        self.reactor.arm(self, self._phase_ends() - self.reactor.now)

    def _phase_ends(self) -> float:
        goodbye_s = self._drain.goodbye_s
        own = self._since + goodbye_s
        cut = self._window_ends + goodbye_s
        match self._phase:
            case Phase.TELLING:
                return min(max(own, self._window_ends), cut - min(_MARGIN_S, goodbye_s / 4))
            case Phase.LISTENING:
                return min(own, cut - min(_MARGIN_S, goodbye_s / 4))
            case Phase.CLOSING:
                return self._window_ends if self._stop() is Boundary.MESSAGE else cut
            case Phase.ECHO:
                return own
            case _:
                return cut

    def on_deadline(self) -> None:
        match self._phase:
            case Phase.TELLING | Phase.LISTENING:
                self._enter(Phase.CLOSING)
                self.backend.deliver = self._seek
                self._seek(b"")
            case Phase.CLOSING if self.reactor.now < self._window_ends + self._drain.goodbye_s:
                self._arm()
                self._seek(b"")
            case Phase.ECHO:
                self.finish(Why.CUT if self.client.outbox else Why.DONE)
            case _:
                self.finish(Why.CUT)

    def settle(self) -> None:
        client = self.client
        if Phase.OPEN < self._phase < Phase.ECHO and self.backend.ended and self.why is None:
            if self.from_backend.at_frame_boundary:
                self._close_client()
                return
            self._leave_alone()
        if self._phase is not Phase.ECHO:
            if self._needs_no_end:
                self.finish(Why.DONE)
            super().settle()
        elif self.why is None:
            answered = client.ended or client.broken or self.from_client.close_complete
            if answered and not client.outbox:
                self.finish(Why.DONE)
            else:
                client.watch()
                self.backend.watch()

    @property
    def _needs_no_end(self) -> bool:
        """Both Closes are through and the backend has ended: the client's END_STREAM is not awaited (nghttpx sends
        none)."""
        if not (isinstance(self.client, StreamSide) and self.backend.ended) or self.client.outbox:
            return False
        return self.from_client.close_complete and self.from_backend.close_complete

    @property
    def is_movable(self) -> bool:
        """A session that says goodbye, or has begun its Close, ends where it is."""
        closing = self.from_client.close_seen or self.from_backend.close_seen
        return super().is_movable and self._phase is Phase.OPEN and not closing

    def finish(self, why: Why) -> None:
        self.reactor.disarm(self)
        super().finish(why)

    def abort(self) -> None:
        self.finish(Why.FAILED)
