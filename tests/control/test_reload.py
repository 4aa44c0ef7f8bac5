"""A reload as a whole: file order, verdicts, exit codes, and what is left alone. In virtual time."""

from dataclasses import replace

import trio
import trio.testing
from support.trio_test import trio_test

from control.fakes import Behaviour, World, made_of, pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control.plan import Plan
from lbproxy.control.reload import Reload
from lbproxy.link.grid import Counter
from lbproxy.settings import HealthSettings, ReloadSettings
from lbproxy.telemetry.events import (
    BackendDraining,
    BackendStarting,
    Notice,
    ReloadDone,
    ReloadFinished,
    ReloadRollingBack,
    ReloadStarted,
)
from lbproxy.telemetry.text import verdict


async def carry_out(world, settings, *, pools=(), config_only=False):
    """Returns the exit code."""
    wanted = tuple(one for one in made_of(settings) if not pools or one.settings.name in pools)
    plan = Plan("r1", "command", settings, wanted, whole=not pools, config_only=config_only)
    await Reload(world.context, plan).run()
    return world.of(ReloadFinished)[-1].exit_code


def breaking(pool, generation, slot=1):
    def behave(spec):
        broken = (spec.generation.settings.name, spec.generation.number, spec.slot) == (pool, generation, slot)
        return Behaviour(breaks=broken)

    return behave


def results(world):
    return [(done.pool, done.result, done.from_generation, done.generation) for done in world.of(ReloadDone)]


@trio_test(clock="autojump", timeout_s=1000)
async def test_every_pool_gets_a_new_generation_and_a_verdict_in_file_order():
    settings = settings_of(pool_settings("web"), pool_settings("api", size=1))
    async with World(settings).running() as world:
        assert await carry_out(world, settings) == 0
        assert results(world) == [("web", "ok", 1, 2), ("api", "ok", 1, 2)]
        assert world.workers.served == ["api.1@2", "web.1@2", "web.2@2"]
        assert world.of(ReloadStarted)[0].pools == ("web", "api")


@trio_test(clock="autojump", timeout_s=1000)
async def test_the_verdict_counts_what_happened_meanwhile_and_not_before():
    settings = settings_of(pool_settings())
    async with World(settings).running() as world:
        world.count("web.1@1", Counter.REQUESTS, 1000)

        async def traffic():
            await trio.sleep(0.5)
            world.count("web.1@1", Counter.REQUESTS, 300)
            world.count("web.2@1", Counter.CUT, 2)
            world.grid.values[world.grid.base(1, world.fleet.pools["web"].cell) + Counter.FAILED] += 1

        world.nursery.start_soon(traffic)
        await carry_out(world, settings)
        (done,) = world.of(ReloadDone)
        assert (done.requests, done.failed, done.cut) == (300, 1, 2)
        assert verdict(done) == (
            f"reloaded web to generation 2 in {done.duration_s:.1f}s: "
            "300 requests served meanwhile, 1 failed, 2 connections cut"
        )


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_broken_deploy_is_rolled_back_and_later_pools_are_never_touched():
    settings = settings_of(pool_settings("web"), pool_settings("api", size=1))
    changed = replace(settings_of(*settings.pools, listeners=("127.0.0.1:80", "127.0.0.1:81")))
    async with World(settings, breaking("web", 2)).running() as world:
        assert await carry_out(world, changed) == 5
        assert results(world) == [("web", "rolled_back", 1, 2), ("api", "aborted", 1, 1)]
        assert world.of(ReloadDone)[0].why == "web.1@2: exit code 1"
        assert world.of(ReloadDone)[0].output == ("Traceback", "ImportError")
        assert world.workers.served == ["api.1@1", "web.1@1", "web.2@1"]
        assert len(world.of(ReloadRollingBack)) == 1
        assert world.of(ReloadFinished)[0].text == (
            "web: generation 1 serves now, 2 of 2 ready\n"
            "api: generation 1 serves now, 1 of 1 ready\n"
            "never touched: the backends of web, api, listeners and routes"
        )
        assert len(world.workers.tables[-1].listeners) == 1
        assert world.sockets.released == [(("127.0.0.1:80",), 1)], "what was bound for nothing is closed"
        assert world.sockets.shown == [], "and nobody was let in"
        assert world.context.settings is settings


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_pool_that_came_through_stays_when_a_later_one_is_rolled_back():
    settings = settings_of(pool_settings("web"), pool_settings("api", size=1))
    async with World(settings, breaking("api", 2)).running() as world:
        assert await carry_out(world, settings) == 5
        assert world.workers.served == ["api.1@1", "web.1@2", "web.2@2"]


@trio_test(clock="autojump", timeout_s=1000)
async def test_the_number_of_a_failed_generation_is_not_used_again():
    settings = settings_of(pool_settings())
    async with World(settings, breaking("web", 2)).running() as world:
        assert await carry_out(world, settings) == 5
        assert await carry_out(world, settings) == 0
        assert world.workers.served == ["web.1@3", "web.2@3"]
        assert world.of(ReloadDone)[-1].from_generation == 1


@trio_test(clock="autojump", timeout_s=1000)
async def test_capacity_that_does_not_come_back_is_exit_6():
    def behave(spec):
        old = spec.generation.number == 1
        again = old and world.pids >= 3
        return Behaviour(breaks=again or (not old and spec.slot == 2), stops_in_s=0.0)

    world = World(settings_of(pool_settings()), behave)
    async with world.running():
        assert await carry_out(world, world.settings) == 6
        assert world.of(ReloadDone)[0].result == "failed"


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_listener_that_cannot_be_bound_means_that_nothing_happens():
    settings = settings_of(pool_settings())
    async with World(settings).running() as world:
        world.sockets.taken.add("127.0.0.1:81")
        changed = settings_of(pool_settings(), listeners=("127.0.0.1:80", "127.0.0.1:81"))
        started = world.pids
        assert await carry_out(world, changed) == 1
        assert world.pids == started
        (done,) = world.of(ReloadDone)
        assert done.result == "aborted"
        assert done.why == "cannot listen on 127.0.0.1:81: address already in use; nothing has happened"


@trio_test(clock="autojump", timeout_s=1000)
async def test_listeners_and_routes_come_last_and_a_removed_pool_is_retired_then():
    settings = settings_of(pool_settings("web", size=1), pool_settings("old", size=1))
    changed = settings_of(pool_settings("web", size=1), pool_settings("new", size=2), listeners=("127.0.0.1:81",))
    async with World(settings).running() as world:
        world.notices.append("something waits for the next start")
        assert await carry_out(world, changed) == 0
        assert world.of(ReloadStarted)[0].sizes == (1, 2)
        assert [(notice.text, notice.reload) for notice in world.of(Notice)] == [
            ("something waits for the next start", "r1"),
            ("pool old is removed: the file does not have it any more", "r1"),
        ]
        assert [(one.backend, one.reload) for one in world.of(BackendDraining)][-1] == ("old.1@1", "r1")
        assert results(world) == [("web", "ok", 1, 2), ("new", "ok", 0, 1)]
        assert world.workers.served == ["new.1@1", "new.2@1", "web.1@2"]
        assert sorted(world.fleet.pools) == ["new", "web"]
        first = next(table for table in world.workers.tables if str(table.listeners[0].settings.address).endswith("81"))
        names = {str(view.id) for pool in first.pools for view in pool.backends}
        assert {"new.1@1", "new.2@1", "web.1@2", "old.1@1"} <= names, "the old pool serves until no route leads to it"
        assert world.applied_live == [(settings, changed)]
        assert world.sockets.hidden == world.sockets.shown == [("127.0.0.1:81",)]
        assert world.sockets.released == [(("127.0.0.1:81",), 1)]


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_new_pool_that_breaks_is_not_there_afterwards():
    settings = settings_of(pool_settings("web", size=1))
    async with World(settings, breaking("new", 1)).running() as world:
        changed = settings_of(pool_settings("web", size=1), pool_settings("new"))
        assert await carry_out(world, changed) == 5
        assert list(world.fleet.pools) == ["web"]
        assert "new was not added" in world.of(ReloadFinished)[0].text


@trio_test(clock="autojump", timeout_s=1000)
async def test_named_pools_alone_are_replaced_and_the_frame_stays():
    settings = settings_of(pool_settings("web", size=1), pool_settings("api", size=1))
    changed = settings_of(*settings.pools, listeners=("127.0.0.1:81",))
    async with World(settings).running() as world:
        assert await carry_out(world, changed, pools=("api",)) == 0
        assert world.workers.served == ["api.1@2", "web.1@1"]
        assert world.context.settings is settings
        assert world.applied_live == []


@trio_test(clock="autojump", timeout_s=1000)
async def test_config_only_spares_the_backends_when_only_live_settings_changed():
    settings = settings_of(pool_settings())
    changed = settings_of(pool_settings(health=HealthSettings(interval_s=9.0), balance="round_robin"))
    async with World(settings).running() as world:
        pids = world.pids
        assert await carry_out(world, changed, config_only=True) == 0
        assert world.pids == pids
        assert results(world) == [("web", "ok", 1, 1)]
        assert world.workers.tables[-1].pools[0].balance == "round_robin"
        assert world.member("web.1@1").runner.settings.health.interval_s == 9.0


@trio_test(clock="autojump", timeout_s=1000)
async def test_config_only_replaces_backends_whose_environment_changed():
    async with World(settings_of(pool_settings())).running() as world:
        changed = settings_of(pool_settings(env=(("A", "1"),)))
        assert await carry_out(world, changed, config_only=True) == 0
        assert world.workers.served == ["web.1@2", "web.2@2"]


@trio_test(clock="autojump", timeout_s=1000)
async def test_config_only_adds_and_removes_backends_of_the_same_generation():
    async with World(settings_of(pool_settings())).running() as world:
        assert await carry_out(world, settings_of(pool_settings(size=4)), config_only=True) == 0
        assert world.workers.served == [f"web.{slot}@1" for slot in (1, 2, 3, 4)]
        assert world.pids == 4
        assert await carry_out(world, settings_of(pool_settings(size=1)), config_only=True) == 0
        assert world.workers.served == ["web.1@1"]
        assert world.pids == 4


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_change_of_fixed_targets_touches_only_those_that_changed():
    one, two, three = (Address("10.0.0.1", port) for port in (1, 2, 3))
    settings = settings_of(pool_settings(command=None, targets=(one, two)))
    changed = settings_of(pool_settings(command=None, targets=(two, three)))
    async with World(settings).running() as world:
        assert await carry_out(world, changed) == 0
        assert world.workers.served == ["web.1@2", "web.2@1"]
        assert world.member("web.1@2").runner.generation.settings.targets[0] == three
        assert await carry_out(world, changed) == 0
        assert world.workers.served == ["web.1@2", "web.2@1"], "nothing changed, nothing is touched"


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_reload_in_the_middle_says_that_it_was_aborted_when_control_stops():
    settings = settings_of(pool_settings("web"), pool_settings("api", size=1))
    async with World(settings).running() as world:
        with trio.move_on_after(1.5):
            await carry_out(world, settings)
        assert results(world) == [("web", "aborted", 1, 2), ("api", "aborted", 1, 1)]
        assert world.of(ReloadFinished)[0].exit_code == 1


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_mistake_of_ours_ends_the_reload_and_not_control():
    settings = settings_of(pool_settings())
    async with World(settings).running() as world:
        world.cells._free.clear()
        assert await carry_out(world, settings) == 6
        assert "more than 64 backends" in world.of(ReloadDone)[0].why
        assert world.workers.served == ["web.1@1", "web.2@1"]
        assert not world.fleet.pools["web"].reloading


@trio_test(clock="autojump", timeout_s=1000)
async def test_what_a_mistake_leaves_behind_is_stopped():
    settings = settings_of(pool_settings(reload=ReloadSettings(max_surge=2)))
    async with World(settings).running() as world:
        del world.cells._free[1:]
        assert await carry_out(world, settings) == 6
        await trio.sleep(5)
        assert [str(member.backend.id) for member in world.fleet.pools["web"].members] == ["web.1@1", "web.2@1"]


@trio_test(clock="autojump", timeout_s=1000)
async def test_events_of_a_reload_carry_its_id_and_later_ones_do_not():
    settings = settings_of(pool_settings(size=1))
    async with World(settings).running() as world:
        assert world.of(BackendStarting) == []
        await carry_out(world, settings)
        assert world.member("web.1@2").runner.reload is None
