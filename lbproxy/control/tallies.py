"""The sums of what all workers have counted since control began, and the figures of the last seconds.

Each worker sends only its increase (link/messages.py), so no sum goes back when a worker dies: at most its last second
is missing. Knows neither metrics nor the status document, which both read the same sums here.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakSet

import trio

from lbproxy.link.codec import LinkBroken
from lbproxy.link.messages import Exchanges, Increase, Stats
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S, Histogram

RECENT_S = 10.0
LEAST_S = 1.0  # the shortest time that a rate is taken of
SERVED = "served"
KEPT_GENERATIONS = 8  # of each pool
_BUCKETS = len(DURATION_BOUNDS_S) + 1


@dataclass(frozen=True, slots=True)
class Pace:
    """The last RECENT_S of a pool. The percentiles are None where no exchange has ended in that time."""

    requests_per_s: float
    p50_s: float | None
    p99_s: float | None


class Watch:
    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.longest_s = 0.0


class GenerationCounts:
    """What the backends of one generation have answered."""

    def __init__(self) -> None:
        self.errors = 0  # 5xx
        self.durations = Histogram(DURATION_BOUNDS_S)

    def add(self, part: Exchanges) -> None:
        self.durations.add(part.buckets, part.took_s)
        if part.status >= 500:
            self.errors += sum(part.buckets)

    def since(self, before: "GenerationCounts") -> "GenerationCounts":
        counts = GenerationCounts()
        counts.errors = self.errors - before.errors
        less = [now - then for now, then in zip(self.durations.buckets, before.durations.buckets, strict=True)]
        counts.durations.add(less, self.durations.total - before.durations.total)
        return counts


class Tallies:
    """Keyed by pool, or by labels in the order of the metric's. The pool is empty where no pool took a request."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, ...], int] = {}  # by pool, method and status
        self.durations: dict[str, Histogram] = {}
        self.request_bytes: dict[str, int] = {}
        self.response_bytes: dict[str, int] = {}
        self.waits: dict[str, Histogram] = {}  # in the queue
        self._watches: WeakSet[Watch] = WeakSet()
        self.incidents: dict[str, dict[tuple[str, ...], int]] = {}  # by name: see Incidents
        self.generations: dict[tuple[str, int], GenerationCounts] = {}  # by pool; the newest few
        self.express: dict[str, int] = {}  # SERVED, or why the express lane handed an exchange over
        self._recent: deque[tuple[float, dict[str, Histogram]]] = deque()
        self._began: float | None = None

    def add(self, before: Stats, stats: Stats) -> None:
        """Add the increase in `stats`. `before`: the worker's message before this one. Raises LinkBroken."""
        increase = stats.increase
        _check(increase)
        for (result, number), old in _express(before, stats):
            self.express[result] = self.express.get(result, 0) + max(0, number - old)
        recent: dict[str, Histogram] = {}
        for part in increase.exchanges:
            key = (part.pool, part.method, str(part.status))
            self.requests[key] = self.requests.get(key, 0) + sum(part.buckets)
            self.request_bytes[part.pool] = self.request_bytes.get(part.pool, 0) + part.request_bytes
            self.response_bytes[part.pool] = self.response_bytes.get(part.pool, 0) + part.response_bytes
            for durations in (self.durations, recent):
                _histogram(durations, part.pool).add(part.buckets, part.took_s)
            if part.generation:
                self._of_generation(part.pool, part.generation).add(part)
        for waits in increase.waits:
            _histogram(self.waits, waits.pool).add(waits.buckets, waits.waited_s)
            for watch in self._watches:
                if watch.pool == waits.pool:
                    watch.longest_s = max(watch.longest_s, waits.longest_s)
        for incident in increase.incidents:
            counts = self.incidents.setdefault(incident.name, {})
            counts[incident.labels] = counts.get(incident.labels, 0) + incident.number
        now = trio.current_time()
        self._began = now if self._began is None else self._began
        self._forget(now)
        if recent:
            self._recent.append((now, recent))

    def _of_generation(self, pool: str, generation: int) -> "GenerationCounts":
        counts = self.generations.get((pool, generation))
        if counts is None:
            counts = self.generations[pool, generation] = GenerationCounts()
            known = sorted(number for name, number in self.generations if name == pool)
            for number in known[:-KEPT_GENERATIONS]:
                del self.generations[pool, number]
        return counts

    def watch_waits(self, pool: str) -> Watch:
        """The longest wait in the queue of a pool from now on, for as long as somebody holds it."""
        watch = Watch(pool)
        self._watches.add(watch)
        return watch

    def pace(self, pool: str) -> Pace:
        now = trio.current_time()
        self._forget(now)
        together = Histogram(DURATION_BOUNDS_S)
        for _, durations in self._recent:
            if pool in durations:
                together.add(durations[pool].buckets, durations[pool].total)
        over_s = min(RECENT_S, max(LEAST_S, now - self._began if self._began is not None else 0.0))
        return Pace(together.count / over_s, together.quantile(0.5), together.quantile(0.99))

    def server_errors(self) -> dict[str, int]:
        """The exchanges that ended with a status of 5xx, by pool."""
        sums: dict[str, int] = {}
        for (pool, _, status), number in self.requests.items():
            if status.startswith("5"):
                sums[pool] = sums.get(pool, 0) + number
        return sums

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] <= now - RECENT_S:
            self._recent.popleft()


def _histogram(book: dict[str, Histogram], pool: str) -> Histogram:
    if pool not in book:
        book[pool] = Histogram(DURATION_BOUNDS_S)
    return book[pool]


def _express(before: Stats, stats: Stats) -> list[tuple[tuple[str, int], int]]:
    handed_over = [((why, number), before.handed_over.get(why, 0)) for why, number in stats.handed_over.items()]
    return [((SERVED, stats.served), before.served), *handed_over]


def _check(increase: Increase) -> None:
    """A worker that has lost its mind must not make a counter go back."""
    for part in increase.exchanges:
        _check_numbers(part.buckets, part.took_s, part.request_bytes, part.response_bytes)
    for waits in increase.waits:
        _check_numbers(waits.buckets, waits.waited_s, waits.longest_s)
    if any(incident.number < 0 for incident in increase.incidents):
        raise LinkBroken("an incident that happened less than never")


def _check_numbers(buckets: Sequence[int], *sums: float) -> None:
    if len(buckets) != _BUCKETS or min(*buckets, *sums) < 0:
        raise LinkBroken(f"buckets {buckets} with the sums {sums}")
