"""Histograms as plain numbers: how many values fell between two bounds, and their sum.

Knows neither metrics nor workers. A value that equals a bound belongs below it, as in Prometheus.
"""

from bisect import bisect_left
from collections.abc import Sequence

DURATION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
START_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
RELOAD_BOUNDS_S = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


class Histogram:
    """`buckets` has one number more than `bounds`: the values above the last one."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0  # the sum of the values

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, buckets: Sequence[int], total: float) -> None:
        """Add the values of another histogram with the same bounds."""
        self.buckets = [mine + other for mine, other in zip(self.buckets, buckets, strict=True)]
        self.total += total

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def quantile(self, share: float) -> float | None:
        """The value below which `share` of all values are, as Prometheus' histogram_quantile() estimates it.

        Values are taken to be spread evenly within a bucket. Above the last bound it is the last bound. None without
        any value.
        """
        rank, below, lower = share * self.count, 0, 0.0
        for number, upper in zip(self.buckets, self.bounds, strict=False):
            if number and below + number >= rank:
                return lower + (upper - lower) * (rank - below) / number
            below, lower = below + number, upper
        return self.bounds[-1] if self.count else None
