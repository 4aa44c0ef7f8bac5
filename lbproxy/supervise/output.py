"""Output of backends: lines, the last thousand of each backend and generation, and how much of a flood is logged.

Knows bytes and lines. Knows neither pipes nor processes; what reads them is process.py.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from lbproxy.model import BackendId

LINE_BYTES = 8192  # a longer line is split
RING_LINES = 1000
RING_BYTES = 1024 * 1024  # a thousand lines of 8 KiB would be 8 MiB, times backends, times generations
LOGGED_PER_S = 100  # of one backend ([log] backend_lines); the rest is in the ring, counted and said
KEPT_ENDED = 4  # rings of ended backends, of one slot


class LineSplitter:
    """Bytes in, whole lines out, without their line end; at most `LINE_BYTES` are kept back."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines: list[bytes] = []
        for line in whole:
            if len(line) <= LINE_BYTES:
                lines.append(line.removesuffix(b"\r"))
            else:
                lines += _pieces(line.removesuffix(b"\r"))
        if len(self._rest) > LINE_BYTES:
            *ready, self._rest = _pieces(self._rest)
            lines += ready
        return lines

    def end(self) -> list[bytes]:
        """What has no line end because the stream is over."""
        rest, self._rest = self._rest, b""
        return _pieces(rest) if rest else []


def _pieces(line: bytes) -> list[bytes]:
    if len(line) <= LINE_BYTES:
        return [line]
    return [line[start : start + LINE_BYTES] for start in range(0, len(line), LINE_BYTES)]


@dataclass(frozen=True, slots=True)
class OutputLine:
    number: int  # 1, 2, 3 ... in this ring; a gap is what was lost to a flood
    time: float  # seconds since 1970
    text: str


class OutputRing:
    """The last lines of one backend and generation, over all its restarts."""

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        # Bytes are kept and decoded when read: in a flood nearly all of them never are.
        self._lines: deque[tuple[int, float, bytes]] = deque()
        self._bytes = 0
        self._tell = tell
        self._newer = trio.Event()
        self.newest = 0  # number of the newest line

    def add(self, lines: list[bytes]) -> None:
        now = time.time()
        skipped = max(0, len(lines) - RING_LINES)
        self.newest += skipped
        for line in lines[skipped:]:
            self.newest += 1
            self._lines.append((self.newest, now, line))
            self._bytes += len(line)
        while len(self._lines) > RING_LINES or self._bytes > RING_BYTES:
            self._bytes -= len(self._lines.popleft()[2])
        if lines:
            self._newer.set()
            self._newer = trio.Event()
            self._tell()

    def since(self, number: int) -> list[OutputLine]:
        """The lines after `number` that are still here."""
        return [OutputLine(n, at, text_of(line)) for n, at, line in self._lines if n > number]

    def last(self, count: int, *, since: int = 0) -> list[OutputLine]:
        wanted = [entry for entry in self._lines if entry[0] > since][-count:] if count > 0 else []
        return [OutputLine(n, at, text_of(line)) for n, at, line in wanted]

    async def wait_newer(self, number: int) -> None:
        """Until there is a line after `number`."""
        while self.newest <= number:
            await self._newer.wait()


class OutputBook:
    """The rings of all backends that live, and of those of each slot that ended last.

    `logged_per_s`: how many lines of one backend go to the log in a second.
    """

    def __init__(self, logged_per_s: int = LOGGED_PER_S) -> None:
        self.logged_per_s = logged_per_s
        self._rings: dict[BackendId, OutputRing] = {}
        self._ended: dict[BackendId, None] = {}  # in the order of their ends
        self._changed = trio.Event()

    def ring(self, id: BackendId) -> OutputRing:
        """The ring of `id`, made if there is none. A generation that comes back finds its old lines."""
        self._ended.pop(id, None)
        if id not in self._rings:
            self._rings[id] = OutputRing(self._tell)
            self._tell()
        return self._rings[id]

    def retire(self, id: BackendId) -> None:
        """The backend has ended: its ring stays as long as it is one of the last KEPT_ENDED of its slot."""
        self._ended[id] = None
        same_slot = [other for other in self._ended if (other.pool, other.slot) == (id.pool, id.slot)]
        for old in same_slot[:-KEPT_ENDED]:
            del self._ended[old], self._rings[old]

    def rings(
        self, pool: str | None = None, slot: int | None = None, generation: int | None = None
    ) -> list[tuple[BackendId, OutputRing]]:
        """Those that match, by pool, slot and generation."""
        return sorted(
            (
                (id, ring)
                for id, ring in self._rings.items()
                if pool in (None, id.pool) and slot in (None, id.slot) and generation in (None, id.generation)
            ),
            key=lambda entry: entry[0],
        )

    async def wait_changed(self) -> None:
        """Until any backend writes a line. To follow: read `rings`, and what is new in each, after every wait."""
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Allowance:
    """How many lines go to the log in the current second. Time is an argument.

    `per_s()` is asked anew each second, because a reload may change it. With 0 nothing goes there, and nothing is held
    back.
    """

    def __init__(self, per_s: Callable[[], int] = lambda: LOGGED_PER_S) -> None:
        self._per_s = per_s
        self._since = float("-inf")
        self._left = per_s()
        self.held_back = 0

    @property
    def tell_at(self) -> float:
        """When `settle` has something to say; infinite while nothing is held back."""
        return self._since + 1.0 if self.held_back else float("inf")

    def settle(self, now: float) -> int:
        """Begin a new second if the old one is over. Returns how many lines the old one held back."""
        if now < self._since + 1.0:
            return 0
        held_back, self.held_back = self.held_back, 0
        self._since, self._left = now, self._per_s()
        return held_back

    def take(self, lines: list[bytes]) -> list[bytes]:
        """Those that may be logged; the rest is held back and counted."""
        if not self._per_s():
            return []
        allowed = lines[: self._left]
        self._left -= len(allowed)
        self.held_back += len(lines) - len(allowed)
        return allowed


def text_of(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")
