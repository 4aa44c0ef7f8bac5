"""How much a peer may send that costs us work and asks for none: counted per connection and second.

Over a bound the connection fails with ENHANCE_YOUR_CALM. What good clients were seen to do stays far below: a browser
that leaves a page resets 100 streams, gRPC sends a PING for each round trip while data comes, and Go's client opens a
window by 4 KB. Streams that are open at a time have a bound of their own, and so have header blocks.
"""

from typing import Final

from lbproxy.wire.http2.errors import ENHANCE_YOUR_CALM, ConnectionFailed

RESET_BY_PEER: Final = 0  # CVE-2023-44487
RESET_BY_US: Final = 1  # what the peer made us reset, refused streams with it: CVE-2025-8671
SETTINGS: Final = 2
PING: Final = 3
PRIORITY: Final = 4
EMPTY_DATA: Final = 5  # without END_STREAM
SMALL_UPDATE: Final = 6
WINDOW_UPDATE: Final = 7
FRAGMENT: Final = 8  # a CONTINUATION
UNKNOWN: Final = 9  # a frame of a type that is not known, one that is late for its stream, an ACK, a GOAWAY
DATA_PING: Final = 10  # with DATA before it, one way or the other

NAMES: Final = (
    "RST_STREAM",
    "streams that had to be reset",
    "SETTINGS",
    "PING",
    "PRIORITY",
    "empty DATA",
    "WINDOW_UPDATE of a few bytes",
    "WINDOW_UPDATE",
    "CONTINUATION",
    "frames that mean nothing",
    "PING between DATA",
)
MOST: Final = (200, 200, 50, 100, 500, 200, 2_000, 50_000, 500, 500, 10_000)  # at once,
PER_SECOND: Final = (100, 100, *MOST[2:])  # and in the long run
HEADS_AT_ONCE: Final = 16  # each KB of a header block counts as a head
FEW_HEADS: Final = 8  # until the second of a reset is over: a stream that is begun in vain costs more than others
FEW_BYTES: Final = 256  # each such update costs us a frame with at most so much
# A backend is our own: it may reset streams as its requests demand. It shall not keep a worker from its clients.
FACTOR_OF_BACKENDS: Final = 20


class Flood:
    __slots__ = ("_counts", "_factor", "_progress", "_second", "heads_at_once")

    def __init__(self, *, of_backend: bool = False) -> None:
        self._factor = FACTOR_OF_BACKENDS if of_backend else 1
        self._second = 0
        self._counts = [0] * len(NAMES)
        self._progress = 0
        self.heads_at_once = HEADS_AT_ONCE  # that one turn may read of this connection

    def count(self, kind: int, now: float) -> None:
        """Raises ConnectionFailed over the bound."""
        second = int(now)
        if second != self._second:
            passed = (second - self._second) * self._factor
            self._second = second
            self._counts = [max(0, had - passed * most) for had, most in zip(self._counts, PER_SECOND, strict=True)]
            self.heads_at_once = HEADS_AT_ONCE
        self._counts[kind] += 1
        if kind <= RESET_BY_US:
            self.heads_at_once = FEW_HEADS
        if self._counts[kind] > MOST[kind] * self._factor:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, f"too many {NAMES[kind]}")

    def count_ping(self, progress: int, now: float) -> None:
        """`progress`: a number that changes with all DATA. A peer that measures the path sends one PING for each round
        trip that carries some."""
        self.count(PING if progress == self._progress else DATA_PING, now)
        self._progress = progress

    def count_update(self, size: int, now: float, *, waiting: bool) -> None:
        """WINDOW_UPDATE. `waiting`: data waits for a window, so that a small one costs a frame. Where none does, it is
        what a client of gRPC sends for each short message."""
        self.count(SMALL_UPDATE if waiting and size < FEW_BYTES else WINDOW_UPDATE, now)
