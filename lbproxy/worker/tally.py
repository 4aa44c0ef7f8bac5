"""What a worker counts for operators: exchanges by pool, method and status, and rarer incidents. Plain numbers.

Control asks for the increase about once a second (link/messages.py, Increase), adds up those of all workers, and makes
rates, percentiles and metrics of them. What every process must see at once stands in the grid (link/grid.py) instead.

Hot: the express lane counts an exchange in worker/express/body.py, send_last, with two dictionary look-ups and three
additions (0.12 us). A series holds the buckets of the durations, so a request is counted by its bucket alone: the
numbers by status, the histogram of a pool and the exchanges of the express lane are sums of the same buckets.
"""

from bisect import bisect_left
from collections.abc import Collection
from typing import TypeAlias

from lbproxy.link.messages import Exchanges, Incidents, Increase, QueueWaits
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S, Histogram

# A series: the buckets, then these.
BUCKETS = len(DURATION_BOUNDS_S) + 1
TOOK_S, REQUEST_BYTES, RESPONSE_BYTES = range(BUCKETS, BUCKETS + 3)
FIRST_BOUND_S = DURATION_BOUNDS_S[0]
Series: TypeAlias = list[int | float]
Methods: TypeAlias = dict[bytes, dict[int, Series]]  # by method, then by status

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"))
Key: TypeAlias = tuple[str, int]  # a pool, and a generation of its backends
OTHER = b"OTHER"  # a client may invent methods without end


def series_of(methods: Methods, method: bytes, status: int) -> Series:
    """The series that an exchange counts in, made when it is first asked for."""
    known = methods.setdefault(method if method in METHODS else OTHER, {})
    series = known.get(status)
    if series is None:
        series = known[status] = [0] * BUCKETS + [0.0, 0, 0]
    return series


def count(series: Series, took_s: float, request_bytes: int, response_bytes: int) -> None:
    took_s = max(took_s, 0.0)  # the reactor's clock lags behind that of a task by a batch
    series[bisect_left(DURATION_BOUNDS_S, took_s)] += 1
    series[TOOK_S] += took_s
    series[REQUEST_BYTES] += request_bytes
    series[RESPONSE_BYTES] += response_bytes


class Tally:
    """Counts since the last `take`. The lanes are counted apart: `served` is the sum of the express lane's series."""

    def __init__(self) -> None:
        self._express: dict[Key, Methods] = {}
        self._tasks: dict[Key, Methods] = {}
        self._incidents: dict[tuple[str, ...], int] = {}
        self._waits: dict[str, Histogram] = {}
        self._longest_s: dict[str, float] = {}  # of the waits
        self._served_before = 0

    @property
    def served(self) -> int:
        """The number of exchanges of the express lane since the worker began."""
        return self._served_before + sum(
            int(sum(series[:BUCKETS]))
            for methods in self._express.values()
            for known in methods.values()
            for series in known.values()
        )

    def express(self, pool: str, generation: int) -> Methods:
        """The series of the express lane for a pool's backends of one generation."""
        return self._express.setdefault((pool, generation), {})

    def series(self, pool: str, method: bytes, status: int, generation: int = 0) -> Series:
        """A series of the task lane. `pool` is empty for a request that no pool takes, `generation` 0 if no backend had
        part in it."""
        return series_of(self._tasks.setdefault((pool, generation), {}), method, status)

    def note(self, name: str, *labels: str) -> None:
        """Count an incident. `name`, and what its labels are: Incidents in link/messages.py."""
        key = (name, *labels)
        self._incidents[key] = self._incidents.get(key, 0) + 1

    def waited(self, pool: str, waited_s: float) -> None:
        """A request has left the pool's queue, with a lease or without."""
        if pool not in self._waits:
            self._waits[pool] = Histogram(DURATION_BOUNDS_S)
        self._waits[pool].observe(waited_s)
        self._longest_s[pool] = max(waited_s, self._longest_s.get(pool, 0.0))

    def take(self, live: Collection[Key] = ()) -> Increase:
        """The increase since the last call. Series stay in place, because the leases of a backend refer to them; those
        of generations that are not `live` go."""
        self._served_before = self.served
        exchanges = []
        for book in (self._express, self._tasks):
            for key, methods in book.items():
                for method, known in methods.items():
                    for status, series in known.items():
                        if any(series):
                            exchanges.append(_exchanges(key, method, status, series))
                            series[:] = [0] * BUCKETS + [0.0, 0, 0]
            for key in [key for key in book if key[1] and key not in live]:
                del book[key]
        waits, self._waits = self._waits, {}
        longest_s, self._longest_s = self._longest_s, {}
        incidents, self._incidents = self._incidents, {}
        return Increase(
            tuple(exchanges),
            tuple(
                QueueWaits(pool, tuple(waited.buckets), waited.total, longest_s[pool]) for pool, waited in waits.items()
            ),
            tuple(Incidents(key[0], key[1:], number) for key, number in incidents.items()),
        )


def _exchanges(key: Key, method: bytes, status: int, series: Series) -> Exchanges:
    return Exchanges(
        *(key[0], method.decode("ascii"), status, tuple(map(int, series[:BUCKETS])), float(series[TOOK_S])),
        request_bytes=int(series[REQUEST_BYTES]),
        response_bytes=int(series[RESPONSE_BYTES]),
        generation=key[1],
    )
