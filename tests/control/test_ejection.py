"""Ejected backends: too many errors, the floor, the way back, and what control does with what workers say."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from support.trio_test import trio_test

from lbproxy.control.ejection import Ejection, Ejections, Ejector
from lbproxy.link.codec import LinkBroken
from lbproxy.link.messages import BackendErrors
from lbproxy.model import BackendId
from lbproxy.settings import PassiveSettings
from lbproxy.telemetry.events import BackendUnhealthy, Event, Notice

PASSIVE = PassiveSettings(errors=3, within_s=10.0, eject_s=10.0, at_most_percent=50)
IDS = tuple(BackendId("web", slot, 1) for slot in range(1, 5))
ONE, TWO, THREE, FOUR = IDS


def eject(ejections: Ejections, id: BackendId, now: float, fit: tuple[BackendId, ...] = IDS) -> Ejection:
    found = ejections.note(id, (3, "ECONNREFUSED"), PASSIVE, fit, now)
    assert isinstance(found, Ejection)
    return found


def test_a_backend_with_too_many_errors_is_out_until_its_time_is_over() -> None:
    ejections = Ejections()
    assert ejections.note(ONE, (2, "reset"), PASSIVE, IDS, 0.0) is None
    assert ejections.note(ONE, (2, "ECONNREFUSED"), PASSIVE, IDS, 20.0) is None  # the first ones are too old
    assert ejections.find(ONE) is None
    found = ejections.note(ONE, (1, "ECONNREFUSED"), PASSIVE, IDS, 21.0)
    assert found == ejections.find(ONE) == Ejection("ejected: 3 errors in 10s (the last: ECONNREFUSED)", 31.0)
    assert found.why_now(24.0) == "ejected: 3 errors in 10s (the last: ECONNREFUSED); back in 7.0s"
    assert ejections.note(ONE, (9, "late"), PASSIVE, IDS, 22.0) is None
    assert ejections.settle(PASSIVE, IDS, 30.9) == []
    assert ejections.next_end == 31.0
    assert ejections.settle(PASSIVE, IDS, 31.0) == [(ONE, "its ejection is over")]
    assert ejections.next_end == float("inf")
    assert ejections.note(ONE, (2, "reset"), PASSIVE, IDS, 31.0) is None  # it begins anew
    assert not ejections.is_empty


def test_those_that_have_to_stay_are_told_once_in_a_while() -> None:
    ejections = Ejections()
    eject(ejections, ONE, 0.0)
    eject(ejections, TWO, 0.0)
    said = ejections.note(THREE, (3, "reset"), PASSIVE, IDS, 1.0)
    assert said == (
        "web.3@1 has 3 errors in 10s (the last: reset), and stays: no more than 50% of the pool may be ejected"
    )
    assert ejections.note(THREE, (3, "reset"), PASSIVE, IDS, 2.0) is None
    assert isinstance(ejections.note(THREE, (3, "reset"), PASSIVE, IDS, 11.5), str)


def test_the_last_one_stays() -> None:
    assert isinstance(Ejections().note(ONE, (9, "reset"), PassiveSettings(at_most_percent=100), (ONE,), 0.0), str)


def test_where_others_go_an_ejected_one_comes_back_early() -> None:
    ejections = Ejections()
    eject(ejections, ONE, 0.0)
    eject(ejections, TWO, 1.0)
    assert ejections.settle(PASSIVE, (ONE, TWO, THREE), 2.0) == [(ONE, "it is needed: too few others are ready")]
    assert ejections.find(TWO) is not None
    assert ejections.settle(PASSIVE, (TWO,), 3.0) == [(TWO, "it is needed: too few others are ready")]


def test_of_one_that_is_not_ready_any_more_nothing_is_kept() -> None:
    ejections = Ejections()
    eject(ejections, ONE, 0.0)
    ejections.note(TWO, (2, "reset"), PASSIVE, IDS, 0.0)
    assert ejections.settle(PASSIVE, (THREE, FOUR), 1.0) == []
    assert ejections.is_empty


def test_without_passive_all_are_back() -> None:
    ejections = Ejections()
    eject(ejections, ONE, 0.0)
    assert [id for id, _ in ejections.settle(None, IDS, 1.0)] == [ONE]
    assert ejections.is_empty


steps = st.lists(
    st.tuples(st.sampled_from(IDS), st.integers(1, 5), st.sets(st.sampled_from(IDS), min_size=1), st.floats(0.0, 9.0)),
    max_size=30,
)


@given(steps, st.integers(1, 100))
def test_the_floor_holds_over_any_row_of_errors_and_departures(
    rows: list[tuple[BackendId, int, set[BackendId], float]], percent: int
) -> None:
    passive = PassiveSettings(errors=3, within_s=5.0, eject_s=10.0, at_most_percent=percent)
    ejections, now = Ejections(), 0.0
    since: dict[BackendId, float] = {}
    for id, number, fit, pause_s in rows:
        now += pause_s
        for back, _ in ejections.settle(passive, fit, now):
            del since[back]
        since = {one: at for one, at in since.items() if one in fit}
        if isinstance(ejections.note(id, (number, "reset"), passive, fit, now), Ejection):
            since[id] = now
        out = {one for one in IDS if ejections.find(one) is not None}
        assert out == set(since) <= fit
        assert len(out) <= len(fit) * percent // 100
        assert len(out) < len(fit)
        assert all(now < at + 10.0 for at in since.values())


class FakeFleet:
    def __init__(self) -> None:
        self.noted: list[tuple[BackendId, tuple[int, str]]] = []
        self.verdict: Ejection | str | None = None
        self.ends: list[float] = []
        self.settled = self.touched = 0

    def note_errors(self, id: BackendId, errors: tuple[int, str]) -> Ejection | str | None:
        self.noted.append((id, errors))
        return self.verdict

    def settle_ejections(self) -> float:
        self.settled += 1
        self.ends = [end for end in self.ends if end > trio.current_time()]
        return min(self.ends, default=float("inf"))

    def touch(self) -> None:
        self.touched += 1


class FakeWorkers:
    def __init__(self) -> None:
        self.hearers: dict[type, Callable[[int, Any], None]] = {}


@trio_test(clock="autojump")
async def test_control_says_who_is_ejected_and_brings_it_back_in_time() -> None:
    fleet, workers, said = FakeFleet(), FakeWorkers(), list[Event]()
    ejector = Ejector(fleet, workers, said.append)
    hear = workers.hearers[BackendErrors]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ejector.run)
        await trio.testing.wait_all_tasks_blocked()
        hear(1, BackendErrors("web.1@1", 2, "reset"))
        assert (fleet.noted, said, fleet.touched) == ([(ONE, (2, "reset"))], [], 0)
        fleet.verdict = "it stays"
        hear(2, BackendErrors("web.1@1", 2, "reset"))
        assert said == [Notice("it stays")]
        began = trio.current_time()
        fleet.verdict, fleet.ends = Ejection("ejected: 3 errors", began + 10.0), [began + 10.0]
        hear(1, BackendErrors("web.1@1", 1, "reset"))
        assert said[1:] == [BackendUnhealthy("web", "web.1@1", "ejected: 3 errors", 10.0)]
        assert fleet.touched == 1
        await trio.sleep(10.5)
        assert (fleet.touched, fleet.ends) == (2, [])
        nursery.cancel_scope.cancel()


def test_a_worker_that_names_no_backend_talks_nonsense() -> None:
    workers = FakeWorkers()
    Ejector(FakeFleet(), workers, lambda event: None)
    with pytest.raises(LinkBroken):
        workers.hearers[BackendErrors](1, BackendErrors("web", 1, "reset"))
