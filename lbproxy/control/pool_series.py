"""Five minutes of each pool, a sample every five seconds: what the page draws.

Reads totals. Knows neither the page nor the time: the caller says how long a sample took.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

EVERY_S = 5.0
SAMPLES = 60


@dataclass(frozen=True, slots=True)
class Totals:
    """Of a pool since lbproxy began. `p99_s`: of the last seconds, None when it is not known."""

    requests: int
    errors: int
    p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    requests_per_s: float
    errors_per_s: float
    p99_s: float | None = None


class PoolSeries:
    def __init__(self) -> None:
        self._last: dict[str, Totals] = {}
        self._samples: dict[str, deque[Sample]] = {}

    def add(self, pools: Mapping[str, Totals], over_s: float) -> None:
        """`over_s`: the time since the last call. A pool that is not there any more is forgotten."""
        for name, now in pools.items():
            before = self._last.get(name, now)
            sample = Sample(
                max(0, now.requests - before.requests) / over_s, max(0, now.errors - before.errors) / over_s, now.p99_s
            )
            self._samples.setdefault(name, deque(maxlen=SAMPLES)).append(sample)
        self._last = dict(pools)
        self._samples = {name: samples for name, samples in self._samples.items() if name in pools}

    def of(self, pool: str) -> list[Sample]:
        """The oldest first."""
        return list(self._samples.get(pool, ()))
