from hypothesis import given
from hypothesis.strategies import booleans, integers, lists

from lbproxy.model import BackendId, State
from lbproxy.policy.health import Health, servable


def told(health, answers, rise=2, fall=3):
    for passed in answers:
        health = health.after(passed, rise=rise, fall=fall)
    return health


def test_three_failures_in_a_row_make_it_unhealthy():
    assert told(Health(True), [False, False]).healthy
    assert not told(Health(True), [False, False, False]).healthy


def test_a_pass_in_between_starts_the_count_anew():
    assert told(Health(True), [False, False, True, False, False]).healthy


def test_two_passes_in_a_row_bring_it_back():
    assert not told(Health(False), [True, False, True]).healthy
    assert told(Health(False), [True, True]).healthy


@given(lists(booleans()), integers(1, 5), integers(1, 5))
def test_it_changes_only_after_a_whole_row(answers, rise, fall):
    health = Health(True)
    for index, passed in enumerate(answers):
        before, health = health, health.after(passed, rise=rise, fall=fall)
        if before.healthy != health.healthy:
            need = rise if health.healthy else fall
            assert answers[index + 1 - need : index + 1] == [health.healthy] * need


def pool(*states):
    return [(BackendId("web", slot, 1), state) for slot, state in enumerate(states, 1)]


def slots(states):
    return [id.slot for id in servable(pool(*states))]


def test_only_ready_backends_are_served_from_while_there_is_one():
    assert slots([State.UNHEALTHY, State.READY, State.STARTING, State.DRAINING]) == [2]


def test_all_live_ones_stay_when_every_probe_fails():
    assert slots([State.UNHEALTHY, State.BACKOFF, State.UNHEALTHY, State.FAILED]) == [1, 3]


def test_nobody_is_served_from_when_nobody_has_been_ready():
    assert slots([State.STARTING, State.BACKOFF, State.STOPPING, State.DRAINING, State.FAILED]) == []
