"""The reload of one pool over a fake fleet, in virtual time: capacity, order, and the way back."""

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, none, one_of, sampled_from

from control.fakes import Behaviour, FakeFleet, generation
from lbproxy.control.rollout import Change, Rollout
from lbproxy.model import BackendSpec, State

OLD, NEW = generation(6), generation(7)


def specs(made_from, size):
    return tuple(BackendSpec(slot, made_from) for slot in range(1, size + 1))


class Trial:
    """One rollout from start to end."""

    def __init__(self, size, surge=1, *, behave=lambda spec: Behaviour(), old_size=None, old_states=None):
        self.size, self.surge, self.behave = size, surge, behave
        self.old_size = size if old_size is None else old_size
        self.old_states = old_states or {}
        self.rolled_back = []
        self.on_pause = None
        self.aborted_at = None

    async def abort(self):
        await trio.sleep(self.aborted_at)
        self.rollout.abort("enough")

    async def main(self):
        async with trio.open_nursery() as nursery:
            self.fleet = FakeFleet(nursery, self.behave)
            self.old = [
                self.fleet.add_old(spec, self.old_states.get(spec.slot, State.READY))
                for spec in specs(OLD, self.old_size)
            ]
            change = Change(specs(NEW, self.size), tuple(self.old), surge=self.surge)
            self.rollout = Rollout(self.fleet, change, self.rolled_back.append, self.on_pause)
            if self.aborted_at is not None:
                nursery.start_soon(self.abort)
            with trio.fail_after(1000):
                self.outcome = await self.rollout.run()
            self.took = trio.current_time()
            nursery.cancel_scope.cancel()

    def run(self):
        trio.run(self.main, clock=trio.testing.MockClock(autojump_threshold=0))
        return self

    @property
    def serving(self):
        return sorted((member.spec.generation.number, member.spec.slot) for member in self.fleet.serving)


def all_of(number, size):
    return [(number, slot) for slot in range(1, size + 1)]


def breaking(slot):
    return lambda spec: Behaviour(breaks=spec.generation is NEW and spec.slot == slot)


def dying(slot, after_s, **more):
    def behave(spec):
        return Behaviour(dies_after_s=after_s, **more) if spec == BackendSpec(slot, NEW) else Behaviour(**more)

    return behave


@settings(deadline=None)
@given(
    size=integers(1, 6),
    surge=integers(1, 7),
    broken=one_of(none(), integers(1, 6)),
    drains_in_s=sampled_from((0.0, 0.5, 7.0)),
    stops_in_s=sampled_from((0.0, 0.3, 5.0)),
)
def test_capacity_never_falls_and_a_broken_member_restores_the_old_ones(size, surge, broken, drains_in_s, stops_in_s):
    def behave(spec):
        return Behaviour(
            breaks=spec.generation is NEW and spec.slot == broken,
            drains_in_s=drains_in_s,
            stops_in_s=stops_in_s,
        )

    trial = Trial(size, surge, behave=behave).run()
    failed = broken is not None and broken <= size
    assert trial.outcome.result == ("rolled_back" if failed else "ok")
    assert trial.serving == all_of(6 if failed else 7, size)
    assert trial.fleet.members == trial.fleet.serving, "nothing that was retired is left"
    assert trial.fleet.lowest_serving >= size
    assert trial.fleet.highest_running <= size + surge


@settings(deadline=None)
@given(
    size=integers(1, 6),
    surge=integers(1, 7),
    slot=integers(1, 6),
    after_s=floats(0, 12),
    drains_in_s=sampled_from((0.0, 0.5, 7.0)),
)
def test_a_death_after_publication_restores_the_old_ones(size, surge, slot, after_s, drains_in_s):
    slot = min(slot, size)
    trial = Trial(size, surge, behave=dying(slot, after_s, drains_in_s=drains_in_s)).run()
    if trial.outcome.result == "ok":
        assert trial.serving == all_of(7, size)
    else:
        assert trial.outcome.result == "rolled_back"
        assert trial.outcome.broken.why == f"web.{slot}@7: signal SIGSEGV"
        assert trial.serving == all_of(6, size)
        assert trial.fleet.members == trial.fleet.serving
    assert trial.fleet.lowest_serving >= size - 1, "only what died is missing"
    assert trial.fleet.highest_running <= size + surge


@settings(deadline=None)
@given(size=integers(2, 6), surge=integers(1, 3))
def test_new_ones_serve_on_for_old_ones_that_do_not_come_back(size, surge):
    def behave(spec):
        if spec.generation is OLD:
            return Behaviour(breaks=True, drains_in_s=0.0)  # its code was replaced in place
        return Behaviour(breaks=spec.slot == size)

    trial = Trial(size, surge, behave=behave).run()
    published = [slot for slot in range(1, size) if ("stop", slot, 6) in trial.fleet.log]
    assert trial.outcome.result == ("failed" if published else "rolled_back")
    assert trial.serving == sorted(
        [(6, slot) for slot in range(1, size + 1) if slot not in published] + [(7, slot) for slot in published]
    )
    assert trial.fleet.lowest_serving >= size


@pytest.mark.parametrize("size", [1, 2])
def test_capacity_is_reduced_when_neither_old_nor_new_ones_come_up(size):
    def behave(spec):
        if spec.generation is OLD:
            return Behaviour(breaks=True, drains_in_s=0.0, stops_in_s=0.2)
        return Behaviour(dies_after_s=0.1)

    trial = Trial(size, behave=behave).run()
    assert trial.outcome.result == "failed"
    left = [member.spec for member in trial.fleet.members if member.published and member not in trial.fleet.serving]
    assert left == [BackendSpec(1, OLD)], "it stays under supervision, to serve should it come up later"


def test_one_by_one_each_old_one_goes_when_its_successor_serves():
    trial = Trial(3).run()
    made = [entry for entry in trial.fleet.log if entry[0] == "make"]
    stopped = [entry for entry in trial.fleet.log if entry[0] == "stop"]
    assert made == [("make", 1, 7), ("make", 2, 7), ("make", 3, 7)]
    assert stopped == [("stop", 1, 6), ("stop", 2, 6), ("stop", 3, 6)]


def test_draining_goes_on_beside_the_next_batch():
    trial = Trial(3, behave=lambda spec: Behaviour(ready_after_s=1.0, drains_in_s=10.0)).run()
    assert 13.0 < trial.took < 14.0


def test_a_surge_of_the_whole_size_replaces_all_at_once():
    trial = Trial(4, 4, behave=lambda spec: Behaviour(ready_after_s=1.0, drains_in_s=1.0)).run()
    assert trial.took < 2.5


def test_a_failure_before_publication_touches_no_old_one():
    trial = Trial(2, behave=breaking(1)).run()
    assert trial.fleet.log == [("make", 1, 7), ("stop", 1, 7)]
    assert trial.outcome.broken.why == "web.1@7: exit code 1"
    assert trial.outcome.broken.output == ("Traceback", "ImportError")
    assert [broken.why for broken in trial.rolled_back] == ["web.1@7: exit code 1"]


def test_draining_old_ones_are_taken_back_and_not_started_again():
    def behave(spec):
        return Behaviour(breaks=spec == BackendSpec(3, NEW), drains_in_s=100.0)

    trial = Trial(3, behave=behave).run()
    assert trial.outcome.result == "rolled_back"
    assert ("take back", 1, 6) in trial.fleet.log
    assert ("take back", 2, 6) in trial.fleet.log
    assert not [entry for entry in trial.fleet.log if entry[0] == "make" and entry[2] == 6]
    assert trial.serving == all_of(6, 3)


def test_an_old_one_that_dies_while_it_drains_is_started_again_by_a_rollback():
    async def main():
        async with trio.open_nursery() as nursery:
            fleet = FakeFleet(nursery, lambda spec: Behaviour(breaks=spec == BackendSpec(2, NEW), drains_in_s=100.0))
            old = [fleet.add_old(spec) for spec in specs(OLD, 2)]

            async def kill_first():
                await trio.sleep(1.5)
                assert old[0].backend.state is State.DRAINING
                old[0].become(State.STOPPING)
                old[0].gone.set()
                fleet.members.remove(old[0])

            nursery.start_soon(kill_first)
            outcome = await Rollout(fleet, Change(specs(NEW, 2), tuple(old)), lambda broken: None).run()
            assert outcome.result == "rolled_back"
            assert ("make", 1, 6) in fleet.log
            assert sorted(member.spec.slot for member in fleet.serving) == [1, 2]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(deadline=None)
@given(old_size=integers(0, 6), size=integers(1, 6), surge=integers(1, 4))
def test_a_pool_grows_and_shrinks_in_the_same_way(old_size, size, surge):
    trial = Trial(size, surge, old_size=old_size).run()
    assert trial.serving == all_of(7, size)
    assert trial.fleet.lowest_serving >= min(old_size, size)
    assert trial.fleet.highest_running <= max(old_size, size) + surge


def test_failed_and_unhealthy_old_ones_go_first():
    states = {2: State.FAILED, 3: State.UNHEALTHY}
    trial = Trial(3, old_states=states).run()
    stopped = [entry[1] for entry in trial.fleet.log if entry[0] == "stop"]
    assert set(stopped[:2]) == {2, 3}
    assert stopped[2] == 1


def test_what_is_kept_is_not_touched_when_a_pool_grows_and_when_that_fails():
    async def main():
        for broken in (False, True):
            async with trio.open_nursery() as nursery:
                fleet = FakeFleet(nursery, lambda spec: Behaviour(breaks=broken and spec.slot == 3))  # noqa: B023
                old = tuple(fleet.add_old(spec) for spec in specs(OLD, 2))
                change = Change((BackendSpec(3, OLD), BackendSpec(4, OLD)), (), keep=old)
                outcome = await Rollout(fleet, change, lambda broken: None).run()
                assert outcome.result == ("rolled_back" if broken else "ok")
                assert len(fleet.serving) == (2 if broken else 4)
                assert all(member in fleet.serving for member in old)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_cancelled_rollout_leaves_things_as_they_are():
    async def main():
        async with trio.open_nursery() as nursery:
            fleet = FakeFleet(nursery, lambda spec: Behaviour(drains_in_s=100.0))
            old = tuple(fleet.add_old(spec) for spec in specs(OLD, 2))
            with trio.move_on_after(2.5):
                await Rollout(fleet, Change(specs(NEW, 2), old), lambda broken: None).run()
            assert not [entry for entry in fleet.log if entry[0] == "stop"]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(deadline=None)
@given(size=integers(1, 5), surge=integers(1, 3), at_s=floats(0, 8), drains_in_s=sampled_from((0.0, 0.5, 7.0)))
def test_an_abort_at_any_moment_brings_the_old_ones_back_or_comes_too_late(size, surge, at_s, drains_in_s):
    trial = Trial(size, surge, behave=lambda spec: Behaviour(drains_in_s=drains_in_s))
    trial.aborted_at = at_s
    trial.run()
    if trial.outcome.result == "ok":
        assert trial.serving == all_of(7, size)
        assert trial.took <= at_s
    else:
        assert (trial.outcome.result, trial.outcome.broken.why) == ("aborted", "enough")
        assert trial.serving == all_of(6, size)
    assert trial.fleet.members == trial.fleet.serving
    assert trial.fleet.lowest_serving >= size


@settings(deadline=None)
@given(size=integers(1, 5), surge=integers(1, 3), slot=integers(1, 5), decision=sampled_from(("resume", "abort")))
def test_half_way_what_is_proved_of_both_serves_until_somebody_decides(size, surge, slot, decision):
    slot = min(slot, size)
    tries = []

    def behave(spec):
        is_first = spec == BackendSpec(slot, NEW) and len(tries) < 1
        if is_first:
            tries.append(spec)
        return Behaviour(breaks=is_first)

    trial = Trial(size, surge, behave=behave)
    seen = []

    def pause(broken):
        seen.append((broken.why, trial.serving))
        trial.fleet.nursery.start_soon(decide)

    async def decide():
        await trio.sleep(5)
        assert trial.serving == seen[0][1], "nothing moves"
        if decision == "resume":
            trial.rollout.resume()
        else:
            trial.rollout.abort("no")

    trial.on_pause = pause
    trial.run()
    ((why, serving),) = seen
    assert why == f"web.{slot}@7: exit code 1"
    assert len(serving) >= size
    assert trial.outcome.result == ("ok" if decision == "resume" else "aborted")
    assert trial.serving == all_of(7 if decision == "resume" else 6, size)
    assert trial.fleet.members == trial.fleet.serving, "nothing that was retired is left"
    assert trial.fleet.lowest_serving >= size


def test_what_dies_half_way_is_made_again():
    def behave(spec):
        if spec.generation is NEW and spec.slot == 2 and not trial.decided:
            return Behaviour(breaks=True)
        return Behaviour(dies_after_s=3.0 if spec == BackendSpec(1, NEW) and not trial.decided else None)

    trial = Trial(2, behave=behave)
    trial.decided = False

    def pause(broken):
        trial.fleet.nursery.start_soon(decide)

    async def decide():
        await trio.sleep(10)
        trial.decided = True
        trial.rollout.resume()

    trial.on_pause = pause
    trial.run()
    assert trial.outcome.result == "ok"
    assert trial.serving == all_of(7, 2)
    assert trial.fleet.members == trial.fleet.serving


def test_what_died_half_way_and_serves_again_is_left_alone():
    def behave(spec):
        if spec.generation is NEW and spec.slot == 2 and not trial.decided:
            return Behaviour(breaks=True)
        return Behaviour(dies_after_s=3.0 if spec == BackendSpec(1, NEW) else None)

    trial = Trial(2, behave=behave)
    trial.decided = False
    found = []

    def pause(broken):
        trial.fleet.nursery.start_soon(decide)

    async def decide():
        await trio.sleep(10)
        (died,) = [one for one in trial.fleet.members if one.spec == BackendSpec(1, NEW)]
        died.become(State.READY)  # its supervision has started it again
        trial.decided = True
        trial.rollout.resume()
        await trio.sleep(0.1)
        found.append((died.published, [one for one in trial.fleet.members if one.spec == died.spec] == [died]))
        trial.rollout.abort("enough")

    trial.on_pause = pause
    trial.run()
    assert found == [(True, True)]
