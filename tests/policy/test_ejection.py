"""Passive ejection: errors are counted within a time, and the floor holds whatever happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.policy.ejection import Errors, left_out, most


def test_errors_are_counted_within_their_time() -> None:
    errors = Errors()
    for at in (0.0, 4.0, 9.0):
        errors = errors.after(2, now=at, within_s=10.0)
    assert errors.count == 6
    assert errors.after(1, now=10.0, within_s=10.0).count == 5  # those of 0.0 are too old
    assert errors.after(1, now=30.0, within_s=10.0).count == 1


@pytest.mark.parametrize(
    ("fit", "percent", "expected"),
    [(0, 50, 0), (1, 50, 0), (1, 100, 0), (2, 50, 1), (2, 49, 0), (3, 50, 1), (4, 50, 2), (4, 100, 3), (10, 30, 3)],
)
def test_never_more_than_the_share_and_never_the_last_one(fit: int, percent: int, expected: int) -> None:
    assert most(fit, percent) == expected


@given(st.lists(st.integers(0, 9), unique=True), st.sets(st.integers(0, 9)), st.integers(1, 100))
def test_the_floor_holds_for_every_pool(ejected: list[int], fit: set[int], percent: int) -> None:
    out = left_out(ejected, fit, percent)
    assert set(out) <= fit & set(ejected)
    assert len(out) <= len(fit) * percent // 100
    assert not fit or len(out) < len(fit)
    present = [one for one in ejected if one in fit]
    assert list(out) == present[len(present) - len(out) :]  # the last ones
    assert len(out) == len(present) or len(out) == most(len(fit), percent)  # and as many as may be
