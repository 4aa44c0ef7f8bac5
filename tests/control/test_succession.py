"""When control can be handed on. What is handed on is tested with real upgrades (e2e/test_upgrade.py)."""

from types import SimpleNamespace

import pytest

from lbproxy.control.succession import Succession


def succession(*, fleet=True, workers=0, spawning=False, guard=7):
    crew = SimpleNamespace(live={}, wanted=workers, is_spawning=False, moves_under_way=lambda: 0)
    context = SimpleNamespace(fleet=SimpleNamespace(is_settled=fleet), workers=crew)
    children, guarded = SimpleNamespace(is_spawning=spawning), SimpleNamespace(pid=guard)
    resources = SimpleNamespace(children=children, guard=guarded)
    return Succession(None, context, resources, None, None, 0.0)


def test_it_is_settled_when_nothing_is_between_two_states():
    assert succession().unsettled() is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fleet": False}, "a backend is being started or stopped"),
        ({"workers": 1}, "a worker is being started, or ends"),
        ({"spawning": True}, "a process is being started"),
        ({"guard": None}, "a process is being started"),
    ],
)
def test_what_is_between_two_states_cannot_be_handed_on(changes, why):
    assert succession(**changes).unsettled() == why
