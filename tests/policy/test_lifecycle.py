import pytest
from support.each import each

from lbproxy.model import Backend, BackendId, State
from lbproxy.policy.lifecycle import TRANSITIONS, IllegalTransition, LifecycleEvent, after, diagram

ID = BackendId("web", 3, 7)


def backend(state: State) -> Backend:
    return Backend(ID, state, since=1.0, pid=42, restarts=2)


@each(State, LifecycleEvent)
def test_every_pair_of_state_and_event_is_in_the_table_or_is_refused(state, event):
    before = backend(state)
    if (state, event) in TRANSITIONS:
        result = after(before, event, now=5.0)
        assert result.state is TRANSITIONS[state, event]
        assert result.since == 5.0
        assert result.id == ID
    else:
        with pytest.raises(IllegalTransition, match=rf"web\.3@7: {event.name} while {state.name}"):
            after(before, event, now=5.0)
    assert before == backend(state)


def test_nothing_happens_any_more_to_a_backend_that_stops():
    assert not [pair for pair in TRANSITIONS if pair[0] is State.STOPPING]


def test_every_state_but_the_last_can_be_stopped():
    assert all(
        TRANSITIONS[state, LifecycleEvent.STOPPED] is State.STOPPING for state in State if state is not State.STOPPING
    )


def test_no_probe_changes_a_draining_backend():
    for event in (LifecycleEvent.PASSED, LifecycleEvent.RECOVERED, LifecycleEvent.FELL):
        assert (State.DRAINING, event) not in TRANSITIONS


def test_every_state_can_be_reached_from_starting():
    reached = {State.STARTING}
    while True:
        more = {target for (source, _), target in TRANSITIONS.items() if source in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(State)


def test_a_restart_is_counted_and_a_retry_is_not():
    assert after(backend(State.BACKOFF), LifecycleEvent.RESTARTED, now=5.0).restarts == 3
    assert after(backend(State.STARTING), LifecycleEvent.RETRIED, now=5.0).restarts == 2


def test_a_dead_backend_has_no_pid():
    assert after(backend(State.READY), LifecycleEvent.DIED, now=5.0).pid is None
    assert after(backend(State.READY), LifecycleEvent.GAVE_UP, now=5.0).pid is None
    assert after(backend(State.READY), LifecycleEvent.DRAINED, now=5.0).pid == 42


def test_the_diagram_shows_every_row_of_the_table():
    lines = diagram().splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [str(state) for state in State]
    assert sum("->" in line for line in lines) == len(TRANSITIONS)
