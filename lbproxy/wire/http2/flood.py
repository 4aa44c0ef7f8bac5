"""How much a peer may send that costs us work and asks for none: counted per connection and second."""

from typing import Final

from lbproxy.wire.http2.errors import ENHANCE_YOUR_CALM, ConnectionFailed

RESET_BY_PEER: Final = 0
RESET_BY_US: Final = 1  # what the peer made us reset, refused streams with it
SETTINGS: Final = 2
PING: Final = 3
PRIORITY: Final = 4
EMPTY_DATA: Final = 5  # without END_STREAM
WINDOW_UPDATE: Final = 6
FRAGMENT: Final = 7  # a CONTINUATION
UNKNOWN: Final = 8  # a frame of a type that is not known, or late for its stream

NAMES: Final = (
    "RST_STREAM",
    "streams that had to be reset",
    "SETTINGS",
    "PING",
    "PRIORITY",
    "empty DATA",
    "WINDOW_UPDATE",
    "CONTINUATION",
    "frames that mean nothing",
)
MOST_PER_SECOND: Final = (200, 200, 50, 100, 500, 200, 20_000, 500, 500)


class Flood:
    __slots__ = ("_counts", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._counts = [0] * len(NAMES)

    def count(self, kind: int, now: float) -> None:
        """Raises ConnectionFailed over the bound."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._counts = [0] * len(NAMES)
        self._counts[kind] += 1
        if self._counts[kind] > MOST_PER_SECOND[kind]:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, f"too many {NAMES[kind]}")
