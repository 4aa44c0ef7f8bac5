"""When a certificate is ordered."""

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.acme.schedule import LONGEST_S, after_failure, after_success, renewal_at

DAY_S = 86_400.0
draws = st.floats(0, 1, exclude_max=True)


def test_a_certificate_of_90_days_is_renewed_after_60() -> None:
    assert renewal_at(0, 90 * DAY_S, 0.0) == 60 * DAY_S
    assert 57 * DAY_S <= renewal_at(0, 90 * DAY_S, 0.999) < 58 * DAY_S


def test_a_clock_that_is_far_ahead_does_not_order_without_end() -> None:
    assert after_success(0, 90 * DAY_S, 80 * DAY_S, 0.0) == 83 * DAY_S


@given(st.integers(1, 200), draws, st.booleans())
def test_pauses_grow_up_to_a_longest_one(failures: int, draw: float, is_refused: bool) -> None:
    pause_s = after_failure(failures, 1000.0, draw, is_refused=is_refused) - 1000.0
    assert 0 < pause_s <= LONGEST_S
    assert after_failure(failures + 1, 1000.0, draw, is_refused=is_refused) - 1000.0 >= pause_s


def test_an_authority_that_refuses_is_not_asked_more_than_five_times_an_hour() -> None:
    now, asked = 0.0, 0
    while now < 3600.0:
        asked += 1
        now = after_failure(asked, now, 0.0, is_refused=True)
    assert asked <= 5


def test_the_authority_may_ask_for_a_longer_pause() -> None:
    assert after_failure(1, 0.0, 0.5, is_refused=True, retry_after_s=86_400.0) == 86_400.0
    assert after_failure(1, 0.0, 0.0, is_refused=True, retry_after_s=1.0) == 240.0
