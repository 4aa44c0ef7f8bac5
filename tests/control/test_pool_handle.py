"""One pool in the hands of a rollout: drains, deaths, and what is said of them."""

import trio
import trio.testing
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.control.pool_handle import PoolHandle
from lbproxy.link.grid import Counter
from lbproxy.model import BackendSpec, State
from lbproxy.settings import DrainSettings
from lbproxy.telemetry.events import BackendDrained, BackendDraining, BackendTakenBack

settled = trio.testing.wait_all_tasks_blocked


def handle_of(world, name="web", **more):
    return PoolHandle(world.fleet, world.fleet.pools[name], **more)


@trio_test(clock="autojump")
async def test_a_backend_in_no_table_is_drained_at_once_and_others_when_workers_say_so():
    async with World(settings_of(pool_settings())).running() as world:
        handle = handle_of(world)
        fresh = handle.make(BackendSpec(3, world.fleet.pools["web"].generation))
        await handle.wait_proved(fresh)
        await handle.wait_drained(fresh)
        assert world.workers.asked == []
        old = world.member("web.1@1")
        epoch = handle.publish([fresh], [old])
        assert world.workers.served == ["web.2@1", "web.3@1"]
        assert old.backend.state is State.DRAINING
        await handle.wait_drained(old)
        assert world.workers.asked == [("web.1@1", epoch)]


@trio_test(clock="autojump", timeout_s=2000)
async def test_a_drain_ends_with_its_grace_and_a_transfer_has_its_own():
    drain = DrainSettings(request_s=30, transfer_s=900, goodbye_s=5)
    async with World(settings_of(pool_settings(size=3, drain=drain))).running() as world:
        handle = handle_of(world)
        for name, kind, expected_s in (("web.1@1", Counter.REQUEST, 35), ("web.2@1", Counter.TRANSFER, 905)):
            world.workers.busy.add(name)
            world.count(name, kind)
            handle.publish([], [world.member(name)])
            began = trio.current_time()
            await handle.wait_drained(world.member(name))
            assert trio.current_time() - began == expected_s
        assert [event.leases for event in world.of(BackendDraining)] == [1, 1]
        assert [event.after_s for event in world.of(BackendDrained)] == [35, 905]


@trio_test(clock="autojump")
async def test_what_was_cut_in_a_drain_is_said():
    async with World(settings_of(pool_settings())).running() as world:
        handle = handle_of(world, reload="r1")
        world.count("web.1@1", Counter.CUT, 2)
        handle.publish([], [world.member("web.1@1")])
        world.count("web.1@1", Counter.CUT, 3)
        await handle.wait_drained(world.member("web.1@1"))
        assert [(event.cut, event.reload) for event in world.of(BackendDrained)] == [(3, "r1")]


@trio_test(clock="autojump")
async def test_a_draining_backend_is_taken_back_by_publishing_it():
    async with World(settings_of(pool_settings())).running() as world:
        handle = handle_of(world)
        member = world.member("web.1@1")
        handle.publish([], [member])
        handle.publish([member], [])
        assert member.backend.state is State.READY
        assert world.workers.served == ["web.1@1", "web.2@1"]
        assert len(world.of(BackendTakenBack)) == 1


@trio_test(clock="autojump")
async def test_a_death_says_how_and_shows_the_last_words():
    async with World(settings_of(pool_settings())).running() as world:
        handle = handle_of(world)
        fresh = handle.make(BackendSpec(3, world.fleet.pools["web"].generation))
        await handle.wait_proved(fresh)
        handle.publish([fresh], [])
        fresh.runner.die("exit code 3")
        broken = await handle.wait_died(fresh)
        assert broken.why == "exit code 3 after it was proved"
        assert broken.output == ("last words",)
