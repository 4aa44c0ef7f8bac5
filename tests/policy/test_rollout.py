"""Batches, and the backends that leave: invariant 3 on plain values."""

from hypothesis import given
from hypothesis.strategies import composite, integers, lists, sampled_from

from lbproxy.model import Backend, BackendId, State
from lbproxy.policy import rollout
from lbproxy.settings import ReloadSettings

OLD_STATES = (State.READY, State.UNHEALTHY, State.BACKOFF, State.FAILED, State.STARTING)


def backend(slot, state=State.READY, generation=6):
    return Backend(BackendId("web", slot, generation), state, since=0.0)


@composite
def old_backends(draw):
    states = draw(lists(sampled_from(OLD_STATES), min_size=0, max_size=8))
    return [backend(slot, state) for slot, state in enumerate(states, start=1)]


def serving(backends):
    return sum(one.state is State.READY for one in backends)


@given(old=old_backends(), size=integers(1, 8), surge=integers(1, 9))
def test_capacity_stays_between_size_and_size_plus_surge(old, size, surge):
    limit = max(len(old), size) + surge
    floor = min(serving(old), size)
    to_make, new = rollout.slots_in_order(range(1, size + 1), old), []
    while to_make or old:
        count = rollout.batch_size(len(to_make), rollout.running([*old, *new]), limit)
        batch = [backend(slot, generation=7) for slot in to_make[:count]]
        del to_make[:count]
        assert rollout.running([*old, *new, *batch]) <= limit
        new += batch
        leaving = rollout.leaving(old, len(to_make))
        old = [one for one in old if one.id not in leaving]
        assert serving([*old, *new]) >= floor
    assert sorted(one.id.slot for one in new) == list(range(1, size + 1))


@given(old=old_backends(), still=integers(0, 9))
def test_a_backend_that_serves_leaves_after_those_that_do_not(old, still):
    leaving = set(rollout.leaving(old, still))
    stays = [one for one in old if one.id not in leaving]
    if any(one.state is State.READY for one in old if one.id in leaving):
        assert all(one.state is State.READY for one in stays)


def test_equal_ones_leave_in_the_order_of_their_slots():
    old = [backend(3), backend(1), backend(2)]
    assert [id.slot for id in rollout.leaving(old, 1)] == [1, 2]


def test_the_slot_of_a_failed_backend_is_made_first():
    old = [backend(1), backend(2), backend(3, State.FAILED), backend(4, State.UNHEALTHY)]
    assert rollout.slots_in_order(range(1, 5), old) == [3, 4, 1, 2]


def test_a_pool_that_has_failed_whole_is_filled_at_once():
    old = [backend(slot, State.FAILED) for slot in range(1, 5)]
    assert rollout.batch_size(4, rollout.running(old), limit=5) == 4


def test_a_pool_over_its_limit_still_moves_on_by_one():
    assert rollout.batch_size(3, now_running=9, limit=5) == 1


def test_nothing_to_make_makes_nothing():
    assert rollout.batch_size(0, now_running=0, limit=5) == 0


def test_surge_is_a_number_or_a_share_of_the_size_and_never_zero():
    assert rollout.surge(ReloadSettings(max_surge=2), 10) == 2
    assert rollout.surge(ReloadSettings(max_surge=100, max_surge_is_percent=True), 7) == 7
    assert rollout.surge(ReloadSettings(max_surge=25, max_surge_is_percent=True), 5) == 2
    assert rollout.surge(ReloadSettings(max_surge=0), 5) == 1
    assert rollout.surge(ReloadSettings(max_surge=1, max_surge_is_percent=True), 5) == 1
