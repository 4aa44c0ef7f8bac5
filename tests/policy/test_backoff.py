import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists

from lbproxy.policy.backoff import crashes_in_row, delay_s, gives_up


@given(integers(0, 10_000), floats(0.01, 10.0), floats(10.0, 100.0), floats(0.0, 1.0, exclude_max=True))
def test_the_delay_stays_between_half_and_all_of_what_is_due(row, first_s, max_s, draw):
    delay = delay_s(row, first_s, max_s, draw)
    if row == 0:
        assert delay == 0.0
    else:
        assert first_s / 2 <= delay <= max_s


def test_the_delay_doubles_up_to_its_cap():
    assert [delay_s(row, 1.0, 30.0, 0.0) for row in range(8)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_the_draw_takes_away_at_most_half():
    assert delay_s(3, 1.0, 30.0, 0.5) == pytest.approx(3.0)


def test_the_first_restart_after_a_minute_of_health_is_immediate():
    row = crashes_in_row(5, ready_s=60.0)
    assert delay_s(row, 1.0, 30.0, 0.0) == 0.0
    assert delay_s(crashes_in_row(row, ready_s=0.0), 1.0, 30.0, 0.0) == 1.0


def test_the_first_crash_of_all_waits_the_first_delay():
    assert crashes_in_row(0, ready_s=0.0) == 1


def test_a_life_that_had_settled_begins_the_back_off_anew():
    assert crashes_in_row(5, ready_s=10.0) == 1
    assert crashes_in_row(5, ready_s=9.9) == 6


def test_it_gives_up_at_the_fifth_crash_within_a_minute():
    assert not gives_up([1.0, 2.0, 3.0, 4.0], 4.0, 5, 60.0)
    assert gives_up([1.0, 2.0, 3.0, 4.0, 5.0], 5.0, 5, 60.0)


def test_crashes_of_long_ago_do_not_count():
    assert not gives_up([1.0, 100.0, 101.0, 102.0, 103.0], 103.0, 5, 60.0)


@given(lists(floats(0, 1000), max_size=20), floats(0, 1000), integers(1, 10), floats(1, 100))
def test_giving_up_needs_that_many_crashes(times, now, crashes, within_s):
    if gives_up(times, now, crashes, within_s):
        assert len(times) >= crashes
