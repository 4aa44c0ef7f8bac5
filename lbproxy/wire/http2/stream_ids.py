"""What the ids of a connection's streams tell: which are new, which are gone, and how they went (RFC 9113, 5.1.1).

Only clients open streams here: server push is off. So every id is odd, and the same in both roles.
"""

from lbproxy.wire.http2.frames import LARGEST_ID
from lbproxy.wire.http2.stream import State

REMEMBERED_RESETS = 1000
REMEMBERED_GAPS = 16


class StreamIds:
    __slots__ = ("_gaps", "_resets", "newest")

    def __init__(self) -> None:
        self.newest = -1  # no stream was opened yet; a refused stream counts
        self._gaps: list[range] = []  # ids that the client has left out: no frame may come for them
        self._resets: dict[int, None] = {}  # streams that we reset, the oldest first

    def is_new(self, stream_id: int) -> bool:
        return stream_id > self.newest and stream_id & 1 == 1

    def open(self, stream_id: int) -> None:
        if stream_id > self.newest + 2:
            self._gaps = [*self._gaps[1 - REMEMBERED_GAPS :], range(self.newest + 2, stream_id, 2)]
        self.newest = stream_id

    def next(self) -> int | None:
        """The id of a stream that we open; None when there is none left."""
        following = self.newest + 2
        return following if following <= LARGEST_ID else None

    def note_reset(self, stream_id: int) -> None:
        """Frames that the peer sent before it knew are read over. The oldest reset is forgotten when they get many."""
        if len(self._resets) >= REMEMBERED_RESETS:
            del self._resets[next(iter(self._resets))]
        self._resets[stream_id] = None

    def state_of(self, stream_id: int) -> State:
        """The state of a stream that is not open."""
        if stream_id in self._resets:
            return State.RESET
        if not stream_id & 1 or stream_id > self.newest or any(stream_id in gap for gap in self._gaps):
            return State.IDLE
        return State.CLOSED
