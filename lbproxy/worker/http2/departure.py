"""How an HTTP/2 connection of ours ends without losing a request (RFC 9113, 6.8).

First GOAWAY with the highest id there is: the client opens no further stream, and those on their way are still served.
After a round trip (PING), or a second, GOAWAY with the last stream that was served: what comes now is refused, and safe
to send again elsewhere. The connection closes when its last stream has ended.
"""

import random
from collections.abc import Sequence
from enum import Enum
from typing import Any, Protocol

from lbproxy.policy.goodbye import schedule
from lbproxy.wire.http2.errors import NO_ERROR
from lbproxy.wire.http2.frames import LARGEST_ID
from lbproxy.worker.io.reactor import NEVER, Reactor

ROUND_TRIP_S = 1.0
PING = b"lbproxy!"


SPREAD_S = 0.01  # between two idle connections, so that their clients do not all come back at once,
SPREAD_SHARE = 1 / 6  # within so much of the time that a worker has


class Stage(Enum):
    PLANNED = "planned"
    ANNOUNCED = "announced"  # the first GOAWAY is out
    FINAL = "final"  # and the second


class Leaving(Protocol):
    """The connection that ends."""

    def goaway(self, code: int, last_id: int | None = None) -> None: ...
    def ping(self, payload: bytes) -> None: ...
    def close_if_done(self) -> None: ...


class Departure:
    """`in_s`: when it begins. A timed item of the reactor."""

    __slots__ = ("_connection", "_reactor", "deadline", "queued_at", "stage")

    def __init__(self, reactor: Reactor, connection: Leaving, in_s: float) -> None:
        self._reactor = reactor
        self._connection = connection
        self.deadline = self.queued_at = NEVER
        self.stage = Stage.PLANNED
        if in_s > 0:
            reactor.arm(self, in_s)
        else:
            self.begin()

    @property
    def is_final(self) -> bool:
        """Further streams are refused."""
        return self.stage is Stage.FINAL

    def begin(self) -> None:
        if self.stage is Stage.PLANNED:
            self.stage = Stage.ANNOUNCED
            self._connection.goaway(NO_ERROR, LARGEST_ID)
            self._connection.ping(PING)
            self._reactor.arm(self, ROUND_TRIP_S)

    def on_ping_ack(self, payload: bytes) -> None:
        if payload == PING and self.stage is Stage.ANNOUNCED:
            self._finish()

    def on_deadline(self) -> None:
        if self.stage is Stage.PLANNED:
            self.begin()
        elif self.stage is Stage.ANNOUNCED:
            self._finish()

    def _finish(self) -> None:
        self.stage = Stage.FINAL
        self._reactor.disarm(self)
        self._connection.goaway(NO_ERROR)
        self._connection.close_if_done()

    def forget(self) -> None:
        """The connection is closed."""
        self._reactor.disarm(self)


def stop_all(connections: Sequence[Any], grace_s: float) -> None:
    """The worker stops. Connections with streams in hand are told at once, idle ones one after the other."""
    idle = [connection for connection in connections if not connection.streams]
    for connection in connections:
        if connection.streams:
            connection.stop()
    window_s = min(grace_s * SPREAD_SHARE, len(idle) * SPREAD_S)
    for connection, in_s in zip(idle, schedule(len(idle), window_s, random.random()), strict=True):
        connection.stop(in_s)
