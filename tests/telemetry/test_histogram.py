"""Histograms: a value at a bound belongs below it; a quantile is what Prometheus would say."""

import pytest

from lbproxy.telemetry.histogram import Histogram

BOUNDS = (1.0, 2.0, 4.0)


def observed(*values: float) -> Histogram:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    return histogram


def test_a_value_at_a_bound_counts_below_it() -> None:
    assert observed(0.0, 1.0, 1.1, 4.0, 4.1).buckets == [2, 1, 1, 1]


def test_the_total_is_the_sum_and_the_count_the_number_of_values() -> None:
    histogram = observed(0.5, 3.0)
    histogram.add([1, 0, 0, 2], 20.5)
    assert (histogram.count, histogram.total) == (5, 24.0)
    assert histogram.buckets == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ((), 0.5, None),
        ((0.1,), 0.5, 0.5),  # somewhere in the first bucket: its middle
        ((1.5, 1.5, 1.5, 3.0), 0.75, 2.0),
        ((1.5, 3.0), 0.75, 3.0),
        ((9.0,), 0.99, 4.0),  # above the last bound nothing is known
    ],
)
def test_a_quantile_is_interpolated_within_its_bucket(
    values: tuple[float, ...], share: float, expected: float | None
) -> None:
    assert observed(*values).quantile(share) == expected
