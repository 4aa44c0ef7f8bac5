"""When workers can be handed on, and when the new ones serve. Moves are in test_moving.py, the whole in e2e."""

from types import SimpleNamespace

import pytest

from lbproxy.control import old_workers
from lbproxy.control.changed import Changed


def worker(*, state="serving", is_old=False, waiting=0, silent=False):
    channel = SimpleNamespace(waiting=waiting, posted=[])
    channel.post = channel.posted.append
    silence = SimpleNamespace(is_set=lambda: silent)
    return SimpleNamespace(state=state, is_old=is_old, channel=channel, silent=silence)


def crew(*workers, wanted=1, is_spawning=False, moves=0):
    live = dict(enumerate(workers))
    return SimpleNamespace(
        live=live, wanted=wanted, is_spawning=is_spawning, moves_under_way=lambda: moves, changed=Changed()
    )


def test_workers_that_serve_and_are_silent_can_be_handed_on():
    assert old_workers.can_be_handed_on(crew(worker()))
    assert old_workers.can_be_handed_on(crew(worker(), worker(state="leaving", is_old=True)))


@pytest.mark.parametrize(
    "made",
    [
        crew(worker(state="starting")),
        crew(worker(), wanted=2),
        crew(worker(is_old=True)),
        crew(worker(waiting=1)),
        crew(worker(silent=True)),
        crew(worker(), is_spawning=True),
        crew(worker(), moves=1),
    ],
)
def test_nothing_is_handed_on_in_the_middle_of_something(made):
    assert not old_workers.can_be_handed_on(made)


def test_only_the_old_ones_that_serve_are_told_to_leave():
    new, old, leaving = worker(), worker(is_old=True), worker(is_old=True, state="leaving")
    old_workers.tell_to_leave(crew(new, old, leaving), 5.0, 60.0)
    assert [len(one.channel.posted) for one in (new, old, leaving)] == [0, 1, 0]
    assert old.state == "leaving"
