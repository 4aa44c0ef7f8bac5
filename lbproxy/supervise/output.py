"""The output of backends: splitting it into lines, a ring of the last lines of each backend, and the limit of the log.

Knows bytes and lines. Does not know pipes and processes: process.py reads the output.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from lbproxy.model import BackendId

LINE_BYTES = 8192  # a longer line is split
RING_LINES = 1000
RING_BYTES = 1024 * 1024  # a thousand lines of 8 KiB would be 8 MiB, for each backend and each generation
LOGGED_PER_S = 100  # of one backend ([log] backend_lines); the other lines are in the ring, and the log says how many
KEPT_ENDED = 4  # rings of ended backends, of one slot


class LineSplitter:
    """Splits bytes into lines without their line end. At most `LINE_BYTES` wait for the end of their line."""

    def __init__(self, rest: bytes = b"") -> None:
        self._rest = rest

    @property
    def rest(self) -> bytes:
        """The beginning of a line."""
        return self._rest

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
        """The rest of the output, which has no line end."""
        rest, self._rest = self._rest, b""
        return _pieces(rest) if rest else []


def _pieces(line: bytes) -> list[bytes]:
    if len(line) <= LINE_BYTES:
        return [line]
    return [line[start : start + LINE_BYTES] for start in range(0, len(line), LINE_BYTES)]


@dataclass(frozen=True, slots=True)
class OutputLine:
    number: int  # 1, 2, 3 ... in this ring; a flood leaves a gap
    time: float  # seconds since 1970
    text: str


class OutputRing:
    """The last lines of one backend and generation, over all its restarts."""

    def __init__(self, on_line: Callable[[], None] = lambda: None) -> None:
        # Lines are kept as bytes and decoded when they are read: in a flood nearly all of them never are.
        self._lines: deque[tuple[int, float, bytes]] = deque()
        self._bytes = 0
        self._on_line = on_line
        self._newer = trio.Event()
        self.newest = 0  # number of the newest line

    def add(self, lines: list[bytes]) -> float:
        """Returns the time that the lines have, in seconds of the epoch."""
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
            self._on_line()
        return now

    def since(self, number: int) -> list[OutputLine]:
        """The lines after `number` that the ring still holds."""
        return [OutputLine(n, at, text_of(line)) for n, at, line in self._lines if n > number]

    def last(self, count: int, *, since: int = 0) -> list[OutputLine]:
        wanted = [entry for entry in self._lines if entry[0] > since][-count:] if count > 0 else []
        return [OutputLine(n, at, text_of(line)) for n, at, line in wanted]

    def hand_on(self, count: int) -> list[tuple[int, float, bytes]]:
        """The last `count` lines with their numbers and times."""
        return list(self._lines)[-count:]

    def restore(self, lines: list[tuple[int, float, bytes]], newest: int) -> None:
        self._lines.extend(lines)
        self._bytes += sum(len(line) for _, _, line in lines)
        self.newest = newest

    async def wait_newer(self, number: int) -> None:
        """Returns when there is a line after `number`."""
        while self.newest <= number:
            await self._newer.wait()


class OutputBook:
    """The rings of all running backends, and of the last ended backends of each slot.

    `logged_per_s`: how many lines of one backend the log takes in a second.
    """

    def __init__(self, logged_per_s: int = LOGGED_PER_S) -> None:
        self.logged_per_s = logged_per_s
        self._rings: dict[BackendId, OutputRing] = {}
        self._ended: dict[BackendId, None] = {}  # in the order of their ends
        self._changed = trio.Event()

    def ring(self, id: BackendId) -> OutputRing:
        """The ring of `id`; a new one if there is none. A generation that comes back has its old lines."""
        self._ended.pop(id, None)
        if id not in self._rings:
            self._rings[id] = OutputRing(self._wake)
            self._wake()
        return self._rings[id]

    def retire(self, id: BackendId) -> None:
        """The backend has ended: its ring is kept while it is one of the last KEPT_ENDED of its slot."""
        self._ended[id] = None
        same_slot = [other for other in self._ended if (other.pool, other.slot) == (id.pool, id.slot)]
        for old in same_slot[:-KEPT_ENDED]:
            del self._ended[old], self._rings[old]

    def rings(
        self, pool: str | None = None, slot: int | None = None, generation: int | None = None
    ) -> list[tuple[BackendId, OutputRing]]:
        """The matching rings, in the order of pool, slot and generation."""
        return sorted(
            (
                (id, ring)
                for id, ring in self._rings.items()
                if pool in (None, id.pool) and slot in (None, id.slot) and generation in (None, id.generation)
            ),
            key=lambda entry: entry[0],
        )

    async def wait_changed(self) -> None:
        """Returns when any backend writes a line. A follower then reads `rings` and the new lines of each."""
        await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class LineLimit:
    """How many lines the log takes in the current second. Time is an argument.

    `per_s()` is called each second, because a reload may change it. With 0 the log takes no line, and none counts as
    left out.
    """

    def __init__(self, per_s: Callable[[], int] = lambda: LOGGED_PER_S) -> None:
        self._per_s = per_s
        self._since = float("-inf")
        self._left = per_s()
        self.left_out = 0

    @property
    def report_at(self) -> float:
        """The end of the second in which lines were left out; infinite if none were."""
        return self._since + 1.0 if self.left_out else float("inf")

    def next_second(self, now: float) -> int:
        """Begin a new second if the old one is over. Returns how many lines the old one left out."""
        if now < self._since + 1.0:
            return 0
        left_out, self.left_out = self.left_out, 0
        self._since, self._left = now, self._per_s()
        return left_out

    def take(self, lines: list[bytes]) -> list[bytes]:
        """The lines that the log takes. The others are counted as left out."""
        if not self._per_s():
            return []
        allowed = lines[: self._left]
        self._left -= len(allowed)
        self.left_out += len(lines) - len(allowed)
        return allowed


def text_of(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")
