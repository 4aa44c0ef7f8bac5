"""When a silent backend is asked by PING whether it lives, and when it counts as dead. Time is an argument.

Servers of gRPC count a PING within five minutes of the last one as abuse, unless they have sent a head or data
meanwhile; the third ends the connection (too_many_pings). So one PING follows each silence, and then one in five
minutes: a process that hangs later is found by its probes, a machine that vanishes by the keepalive of TCP.
"""

from typing import Final

QUIET_S: Final = 20.0  # streams are open, and nothing has come
PONG_S: Final = 10.0
NEXT_PING_S: Final = 310.0
NEVER: Final = float("inf")


class Liveness:
    __slots__ = ("_heard_at", "_pinged_at", "_pong_by", "_said_at")

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._said_at = now
        self._pinged_at = -NEXT_PING_S
        self._pong_by = NEVER

    def heard(self, now: float) -> None:
        """Bytes have come."""
        self._heard_at = now
        self._pong_by = NEVER

    def said(self, now: float) -> None:
        """A head or data has come."""
        self._said_at = now

    def begin(self, now: float) -> None:
        """The first stream after a time without any."""
        self._heard_at = now
        self._pong_by = NEVER

    def pinged(self, now: float) -> None:
        self._pinged_at = now
        self._pong_by = now + PONG_S

    def is_dead(self, now: float) -> bool:
        return now >= self._pong_by

    @property
    def next_at(self) -> float:
        """When there is something to do: a PING, or to find it dead."""
        if self._pong_by != NEVER:
            return self._pong_by
        quiet_until = self._heard_at + QUIET_S
        if self._said_at > self._pinged_at:
            return quiet_until
        return max(quiet_until, self._pinged_at + NEXT_PING_S)
