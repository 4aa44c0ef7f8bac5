"""The backend of the next lease: even, stable, and always a candidate."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.model import BackendId, BackendView
from lbproxy.policy.balance import least_conn, pick, random_two, rendezvous, round_robin

BALANCES = ["least_conn", "round_robin", "random_two", "hash"]


def backends(count: int, generation: int = 1) -> tuple[BackendView, ...]:
    return tuple(
        BackendView(BackendId("web", slot, generation), Address("127.0.0.1", 20000 + slot), cell=slot)
        for slot in range(1, count + 1)
    )


def nobody(cell: int) -> int:
    return 0


def keys(count: int) -> list[bytes]:
    return [f"10.{n % 7}.{n // 250}.{n % 250}".encode() for n in range(count)]


def spread(picks: Sequence[BackendView]) -> Counter[int]:
    return Counter(backend.id.slot for backend in picks)


@given(
    st.sampled_from(BALANCES),
    st.integers(1, 9),
    st.lists(st.integers(0, 3), min_size=9, max_size=9),
    st.integers(0, 10**12),
    st.none() | st.binary(max_size=20),
    st.floats(0, 1, exclude_max=True),
)
def test_whatever_is_asked_a_candidate_comes_out(
    balance: str, count: int, loads: list[int], turn: int, key: bytes | None, drawn: float
) -> None:
    candidates = backends(count)
    assert pick(balance, candidates, lambda cell: loads[cell - 1], turn, key, draw=lambda: drawn) in candidates


def test_an_unknown_balance_is_an_error() -> None:
    with pytest.raises(ValueError, match="least_con"):
        pick("least_con", backends(2), nobody, 0, None, draw=random.random)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=8), st.integers(0, 10**6))
def test_least_conn_takes_one_with_the_fewest_leases(loads: list[int], turn: int) -> None:
    chosen = least_conn(backends(len(loads)), lambda cell: loads[cell - 1], turn)
    assert loads[chosen.cell - 1] == min(loads)


def test_least_conn_with_equal_loads_rotates() -> None:
    picks = [pick("least_conn", backends(4), nobody, turn, None, draw=random.random) for turn in range(40)]
    assert spread(picks) == dict.fromkeys((1, 2, 3, 4), 10)
    assert len({backend.id.slot for backend in picks[:4]}) == 4


def test_those_behind_a_busy_backend_get_no_more_turns_than_the_others() -> None:
    busy = {1: 5, 2: 5, 3: 0, 4: 0}
    picks = [least_conn(backends(4), busy.__getitem__, turn) for turn in range(20)]
    assert spread(picks) == {3: 10, 4: 10}


@given(st.integers(1, 9), st.integers(0, 10**9))
def test_round_robin_is_exactly_even_within_a_few_rounds(count: int, round_: int) -> None:
    start = round_ * count * 16
    picks = [round_robin(backends(count), turn) for turn in range(start, start + 16 * count)]
    assert set(spread(picks).values()) == {16}
    assert [p.id for p in picks[:count]] == [p.id for p in picks[count : 2 * count]] or count == 1


@given(st.integers(2, 9), st.integers(0, 10**6))
def test_round_robin_is_within_one_or_two_of_even_from_any_turn(count: int, start: int) -> None:
    picks = [round_robin(backends(count), turn) for turn in range(start, start + 10 * count)]
    counts = spread(picks)
    assert all(8 <= counts[slot] <= 12 for slot in range(1, count + 1))


@pytest.mark.parametrize("period", [2, 3, 4, 6, 8])
def test_round_robin_stays_even_when_a_candidate_is_missing_in_step_with_the_turns(period: int) -> None:
    everybody = backends(3)
    counts: Counter[int] = Counter()
    for turn in range(60_000):
        if turn % period:
            counts[round_robin(everybody, turn).id.slot] += 1
        else:
            counts[round_robin(everybody[:2], turn).id.slot] += 1
    assert abs(counts[1] - counts[2]) < 0.03 * counts[1]


def test_random_two_never_takes_the_busiest_and_reaches_all_others() -> None:
    dice = random.Random(7)
    loads = {1: 0, 2: 1, 3: 2, 4: 9}
    picks = [random_two(backends(4), loads.__getitem__, dice.random) for _ in range(2000)]
    counts = spread(picks)
    assert counts[4] == 0
    assert counts[1] > counts[2] > counts[3] > 0


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_random_two_of_two_is_the_less_loaded_however_the_dice_fall(one: float, other: float) -> None:
    dice = iter((one, other))
    assert random_two(backends(2), {1: 1, 2: 0}.__getitem__, lambda: next(dice)).id.slot == 2


def test_random_two_of_equals_is_even() -> None:
    dice = random.Random(7)
    picks = [random_two(backends(4), nobody, dice.random) for _ in range(8000)]
    assert all(1800 < count < 2200 for count in spread(picks).values())


@pytest.mark.parametrize("count", [2, 3, 4, 10])
def test_hash_spreads_its_keys_evenly(count: int) -> None:
    counts = spread([rendezvous(backends(count), key) for key in keys(10_000)])
    fair = 10_000 / count
    assert all(0.85 * fair < counts[slot] < 1.15 * fair for slot in range(1, count + 1))


def test_hash_gives_a_key_the_same_slot_in_the_next_generation() -> None:
    old, new = backends(5), backends(5, generation=2)
    assert all(rendezvous(old, key).id.slot == rendezvous(new, key).id.slot for key in keys(500))


def test_hash_during_a_reload_means_the_newer_of_two_with_the_same_slot() -> None:
    old, new = backends(3), backends(3, generation=2)
    assert all(rendezvous(old + new[:3], key).id.generation == 2 for key in keys(100))
    assert all(rendezvous(new + old, key).id.generation == 2 for key in keys(100))


@given(st.integers(2, 8), st.data())
def test_hash_moves_only_the_keys_of_the_slot_that_left(count: int, data: st.DataObject) -> None:
    everybody = backends(count)
    gone = data.draw(st.sampled_from(everybody))
    left = [backend for backend in everybody if backend is not gone]
    for key in keys(200):
        before = rendezvous(everybody, key)
        if before is not gone:
            assert rendezvous(left, key) is before


def test_hash_does_not_depend_on_the_order_of_the_candidates() -> None:
    everybody = list(backends(6))
    for key in keys(200):
        expected = rendezvous(everybody, key)
        random.Random(key).shuffle(everybody)
        assert rendezvous(everybody, key) is expected


def test_hash_is_the_same_in_every_process_and_every_version() -> None:
    assert [rendezvous(backends(4), key).id.slot for key in (b"", b"127.0.0.1", b"10.0.0.1", b"/a")] == [1, 3, 3, 1]


def test_hash_without_a_key_takes_the_least_loaded() -> None:
    loads = {1: 3, 2: 1, 3: 2}
    assert pick("hash", backends(3), loads.__getitem__, 0, None, draw=random.random).id.slot == 2
