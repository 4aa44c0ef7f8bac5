"""Slow start: a new backend's share grows, whatever the balance; where all are new, shares are equal."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.routing import ONE, THREE, TWO

from lbproxy.policy.balance import pick
from lbproxy.policy.slow_start import LEAST, eased, shares, taking_part

ages = st.dictionaries(st.integers(1, 9), st.none() | st.floats(0.0, 100.0), min_size=1)


def test_a_share_grows_with_the_age_and_begins_above_nothing() -> None:
    assert shares({1: None, 2: 15.0, 3: 0.0, 4: 45.0}, 30.0) == {1: 1.0, 2: 0.5, 3: LEAST, 4: 1.0}


def test_where_all_are_new_shares_are_equal() -> None:
    assert shares({1: 0.0, 2: 0.0}, 30.0) == {1: 1.0, 2: 1.0}
    assert shares({1: 6.0, 2: 3.0}, 30.0) == {1: 1.0, 2: 0.5}


@given(ages, st.floats(0.1, 100.0))
def test_there_is_always_one_with_a_whole_share_and_nobody_has_none(
    ages_s: dict[int, float | None], slow_start_s: float
) -> None:
    found = shares(ages_s, slow_start_s)
    assert found.keys() == ages_s.keys()
    assert max(found.values()) == 1.0
    assert min(found.values()) >= LEAST


def picked(balance: str, share: float, *, in_hand: int, times: int = 6000) -> float:
    """The part of the picks that TWO of three gets with this share. `in_hand`: how many picks a lease lasts."""
    dice = random.Random(7)
    share_of = {ONE.cell: 1.0, TWO.cell: share, THREE.cell: 1.0}
    leases: Counter[int] = Counter()
    held: list[int] = []
    got = 0
    for turn in range(times):
        if balance == "round_robin":
            candidates = taking_part((ONE, TWO, THREE), share_of, dice.random)
            chosen = pick(balance, candidates, leases.__getitem__, turn, None, draw=dice.random)
        else:
            load = eased(leases.__getitem__, share_of, dice.random)
            chosen = pick(balance, (ONE, TWO, THREE), load, turn, None, draw=dice.random)
        got += chosen is TWO
        held.append(chosen.cell)
        leases[chosen.cell] += 1
        if len(held) > in_hand:
            leases[held.pop(0)] -= 1
    return got / times


@pytest.mark.parametrize("balance", ["round_robin", "least_conn", "random_two"])
@pytest.mark.parametrize("in_hand", [0, 60])
def test_a_small_share_is_a_small_part_of_the_work_and_a_whole_one_a_third(balance: str, in_hand: int) -> None:
    parts = [picked(balance, share, in_hand=in_hand) for share in (LEAST, 0.25, 0.5, 1.0)]
    assert parts == sorted(parts)
    assert 0.001 < parts[0] < 0.06
    assert parts[1] < 0.2
    assert parts[2] < 0.3
    assert parts[3] == pytest.approx(1 / 3, abs=0.04)
