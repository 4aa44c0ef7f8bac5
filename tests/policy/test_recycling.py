"""A backend that is over its limit soon after each replacement is replaced ever more seldom."""

from lbproxy.policy.recycling import FIRST_S, MAX_S, SETTLED_S, Recycled


def test_a_backend_that_has_grown_is_replaced_at_once() -> None:
    last = Recycled(at=100.0, over_at=100.0 + SETTLED_S)
    assert not last.is_soon
    assert last.due_at <= 100.0 + SETTLED_S
    assert last.again(400.0) == Recycled(at=400.0)


def test_a_backend_that_is_over_at_once_waits_twice_as_long_each_time() -> None:
    last, pauses = Recycled(at=0.0), []
    for _ in range(9):
        last = Recycled(last.at, last.in_row, over_at=last.at + 5.0)
        assert last.is_soon
        pauses.append(last.due_at - last.at)
        last = last.again(last.due_at)
    assert pauses == [FIRST_S * 2**number for number in range(6)] + [MAX_S] * 3
    assert Recycled(last.at, last.in_row, over_at=last.at + SETTLED_S).again(0.0).in_row == 0


def test_a_backend_that_is_not_over_again_is_not_judged() -> None:
    assert not Recycled(at=0.0).is_soon
    assert Recycled(at=0.0).again(1.0).in_row == 0
