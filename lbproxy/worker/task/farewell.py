"""How an answer without an end is ended when its backend drains: where it may stop, and what the client is told there.

Knows the bytes of one answer, its lease and clock readings. Knows no connection: the attempt asks before it waits.
"""

from collections.abc import Sequence
from typing import Protocol

from lbproxy.errors import ProxyError
from lbproxy.model import LeaseKind
from lbproxy.policy.goodbye import comes_back_in_ms
from lbproxy.policy.grpc_status import UNAVAILABLE
from lbproxy.wire.grpc import MessageTracker, status_lines
from lbproxy.wire.sse import EventTracker
from lbproxy.worker.leases.drain import Lease

GOING_AWAY = "going away"
STATUS_S = 0.25  # a call that has not ended so long after its first answer is a stream
QUIET_S = 0.25  # a call that was told ends so long after an answer: what is on its way still arrives
ANSWER_S = 1.0  # ... or after a message of the client's that finds no answer
BUSY_S = 1.5  # a dialogue that goes on ends so long after it was told
LEAD_S = 0.5  # ... or right behind a message that comes so long before
CUT_S = 0.5  # in any case it ends so long before it would be cut
_NEVER = float("inf")


class GoingAway(ProxyError):
    """A gRPC stream was told goodbye before its backend said a word. Nothing has failed."""

    def __init__(self, pushback_ms: int) -> None:
        super().__init__(503, "destination_unavailable", GOING_AWAY)
        self.pushback_ms = pushback_ms


def cut_error(*, begun: bool, may_replay: bool, is_grpc: bool) -> ProxyError:
    """The grace of an exchange is over. Only what may be replayed is told to come again (DESIGN.md 5)."""
    over = "the grace of the drain is over"
    if is_grpc:
        over = f"{GOING_AWAY}: {over}"
    if begun:
        return ProxyError(504, "cut", over)
    if is_grpc:
        return ProxyError(503, "destination_unavailable", over)
    if may_replay:
        return ProxyError(503, "destination_unavailable", "the backend was taken away")
    return ProxyError(504, "http_response_timeout", over)


class Farewell(Protocol):
    """The end of one answer."""

    def tell(self, now: float, window_ends: float) -> None:
        """The answer shall end, at `window_ends` at the latest."""

    def passes(self, payload: bytes, now: float) -> bytes:
        """The part of the payload that may still pass."""

    def is_over(self, now: float) -> bool:
        """Whether the answer was told, and stands where it may end."""

    def looks_at(self) -> float:
        """When is_over() may have become true though nothing came: clock reading."""

    def trailers(self, now: float) -> Sequence[bytes]:
        """What ends it."""


class EventFarewell:
    """An event stream ends behind a whole event, so that EventSource comes back with its last id."""

    def __init__(self) -> None:
        self._events = EventTracker()
        self._told = False

    def tell(self, now: float, window_ends: float) -> None:
        self._told = True

    def passes(self, payload: bytes, now: float) -> bytes:
        if self._told and (end := self._events.last_boundary(payload)) >= 0:
            payload = payload[:end]
        self._events.feed(payload)
        return payload

    def is_over(self, now: float) -> bool:
        return self._told and self._events.at_boundary

    def looks_at(self) -> float:
        return _NEVER

    def trailers(self, now: float) -> Sequence[bytes]:
        return ()


class CallFarewell:
    """A gRPC stream ends behind a whole message, with status 14, in a quiet moment if there is one.

    Else it ends right behind an answer: of a dialogue nothing is on its way then. An answer to a request that is
    complete has an end, as far as anybody knows: while it goes on it keeps its window.
    """

    def __init__(self, request_id: bytes, lease: Lease) -> None:
        """`lease`: knows when the last byte has passed."""
        self.messages = MessageTracker()
        self.may_ask_more = True  # the client has not ended its side
        self.asked_at = -_NEVER  # its last message was passed on: clock reading
        self._answered_at = -_NEVER
        self._lease = lease
        self._request_id = request_id
        self._window_ends = _NEVER
        self._ends_by = _NEVER  # from then on it ends right behind a message
        self._latest = _NEVER  # from then on it ends between two messages
        self._is_spoken = False  # the last message has passed

    def is_endless(self, now: float) -> bool:
        """Nothing says when it ends: a second answer has come, or the status has not followed the first one."""
        complete = self.messages.complete
        return complete > 1 or (complete == 1 and now >= self._lease.moved_at + STATUS_S)

    @property
    def was_told(self) -> bool:
        return self._latest < _NEVER

    def tell(self, now: float, window_ends: float) -> None:
        self._window_ends = window_ends
        latest = window_ends - min(CUT_S, max(0.0, window_ends - now) / 2)
        if self.may_ask_more:
            latest = min(now + BUSY_S, latest, self._latest)
        self._ends_by = max(now, latest - LEAD_S)
        self._latest = latest

    def passes(self, payload: bytes, now: float) -> bytes:
        if payload:
            self._answered_at = now
        if now >= self._ends_by and (end := self.messages.last_boundary(payload)) > 0:
            payload = payload[:end]
            self._is_spoken = True
        self.messages.feed(payload)
        return payload

    def is_over(self, now: float) -> bool:
        return self._is_spoken or (self.was_told and now >= self.looks_at())

    def looks_at(self) -> float:
        if not self.was_told:
            may_end = self.messages.complete == 1 and self._lease.kind is not LeaseKind.STREAM
            return self._lease.moved_at + STATUS_S if may_end else _NEVER
        if not self.messages.at_boundary:
            return _NEVER
        is_asked = self.asked_at > self._answered_at
        quiet_at = self.asked_at + ANSWER_S if is_asked else self._answered_at + QUIET_S
        return min(quiet_at, self._latest)

    def pushback_ms(self, now: float) -> int:
        return comes_back_in_ms(self._request_id, self._window_ends - now)

    def trailers(self, now: float) -> Sequence[bytes]:
        return status_lines(UNAVAILABLE, GOING_AWAY, pushback_ms=self.pushback_ms(now))
