"""The largest of late: compared with looking at everything that came."""

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.worker.io.recent_peak import Recent


def test_there_is_nothing_at_first() -> None:
    assert Recent(60.0).largest(5.0) == 0


def test_a_peak_is_seen_for_the_window_and_then_forgotten() -> None:
    recent = Recent(60.0)
    recent.add(10.0, 0.9)
    for second in range(11, 100):
        recent.add(float(second), 0.1)
        assert recent.largest(float(second)) == (0.9 if second <= 70 else 0.1)
    assert recent.largest(1000.0) == 0


def test_many_questions_do_not_pile_up() -> None:
    recent = Recent(60.0)
    for number in range(10_000):
        recent.add(number / 1000, 0.0)
    assert len(recent._kept) == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=40))
def test_it_is_the_largest_within_the_window(script: list[tuple[int, int]]) -> None:
    recent, now = Recent(10.0), 0
    seen: list[tuple[int, int]] = []
    for pause, value in script:
        now += pause
        recent.add(now, value)
        seen.append((now, value))
        assert recent.largest(now) == max(value for at, value in seen if now - at <= 10)
