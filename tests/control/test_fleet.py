"""Pools, members and the table: who is in it, when it is published, when a cell is free again."""

import trio
import trio.testing
from support.trio_test import trio_test

from control.fakes import Behaviour, World, pool_settings, settings_of
from lbproxy.control.pool_handle import PoolHandle
from lbproxy.link.grid import Counter
from lbproxy.model import State

settled = trio.testing.wait_all_tasks_blocked


@trio_test(clock="autojump")
async def test_at_the_first_start_each_backend_serves_as_soon_as_it_is_ready():
    behave = lambda spec: Behaviour(ready_after_s=float(spec.slot))  # noqa: E731
    async with World(settings_of(pool_settings(size=2)), behave).running() as world:
        sizes = [len(table.pools[0].backends) for table in world.workers.tables]
        assert sizes == sorted(sizes)
        assert set(sizes) == {0, 1, 2}
        assert world.workers.served == ["web.1@1", "web.2@1"]


@trio_test(clock="autojump")
async def test_a_dead_backend_leaves_the_table_and_comes_back_when_it_is_ready():
    async with World(settings_of(pool_settings())).running() as world:
        world.member("web.1@1").runner.die()
        await settled()
        assert world.workers.served == ["web.2@1"]


@trio_test(clock="autojump")
async def test_an_unhealthy_backend_leaves_the_table_unless_all_are_unhealthy():
    async with World(settings_of(pool_settings())).running() as world:
        world.member("web.1@1").runner.fall()
        await settled()
        assert world.workers.served == ["web.2@1"]
        world.member("web.2@1").runner.fall()
        await settled()
        assert world.workers.served == ["web.1@1", "web.2@1"]
        world.member("web.2@1").runner.die()
        await settled()
        assert world.workers.served == ["web.1@1"]


@trio_test(clock="autojump")
async def test_changes_of_one_moment_make_one_table():
    async with World(settings_of(pool_settings(size=5))).running() as world:
        before = len(world.workers.tables)
        for slot in range(1, 5):
            world.member(f"web.{slot}@1").runner.die()
        await settled()
        assert len(world.workers.tables) == before + 1


@trio_test(clock="autojump")
async def test_a_change_that_the_table_does_not_show_makes_no_table():
    async with World(settings_of(pool_settings())).running() as world:
        before = len(world.workers.tables)
        world.fleet.touch()
        await settled()
        assert len(world.workers.tables) == before
        world.member("web.1@1").runner.on_reachable(None)
        await settled()
        assert len(world.workers.tables) == before + 1, "workers that skip a backend need a new table to use it again"


@trio_test(clock="autojump")
async def test_totals_survive_the_backend_and_its_cell_comes_free_only_without_leases():
    async with World(settings_of(pool_settings())).running() as world:
        pool = world.fleet.pools["web"]
        free = len(world.cells._free)
        world.count("web.1@1", Counter.REQUESTS, 40)
        world.count("web.2@1", Counter.REQUESTS, 2)
        assert pool.total(Counter.REQUESTS) == 42
        handle, member = PoolHandle(world.fleet, world.fleet.pools["web"]), world.member("web.1@1")
        handle.publish([], [member])
        world.workers.busy.add("web.1@1")
        await handle.stop(member)
        assert pool.total(Counter.REQUESTS) == 42
        assert len(world.cells._free) == free, "a worker still holds a lease"
        world.workers.release("web.1@1")
        await settled()
        assert pool.total(Counter.REQUESTS) == 42
        assert len(world.cells._free) == free + 1


@trio_test(clock="autojump")
async def test_being_stopped_is_no_death():
    async with World(settings_of(pool_settings())).running() as world:
        member = world.member("web.1@1")
        await member.runner.stop()
        await settled()
        assert not member.died.is_set()
        assert world.workers.served == ["web.2@1"]


@trio_test(clock="autojump")
async def test_a_refused_connection_reaches_the_backend_it_belongs_to():
    async with World(settings_of(pool_settings())).running() as world:
        for _ in range(3):
            world.fleet.refused(world.member("web.2@1").backend.id, "connection refused")
        await settled()
        assert world.member("web.2@1").backend.state is State.UNHEALTHY
        assert world.workers.served == ["web.1@1"]


@trio_test(clock="autojump")
async def test_a_closed_pool_is_drained_stopped_and_out_of_the_table():
    async with World(settings_of(pool_settings(), pool_settings("old"))).running() as world:
        free = len(world.cells._free)
        await world.fleet.close_pool(world.fleet.pools["old"])
        await settled()
        assert [pool.name for pool in world.workers.tables[-1].pools] == ["web"]
        assert {name for name, _ in world.workers.asked} == {"old.1@1", "old.2@1"}
        assert len(world.cells._free) == free + 3
        assert world.fleet.next_number("old") == 2, "a number is never used again"


@trio_test(clock="autojump")
async def test_the_end_stops_all_and_kills_what_outlasts_the_deadline():
    behave = lambda spec: Behaviour(stops_in_s=1.0 if spec.slot == 1 else 60.0)  # noqa: E731
    async with World(settings_of(pool_settings()), behave).running() as world:
        began, slow = trio.current_time(), world.member("web.2@1")
        await world.fleet.stop(trio.current_time() + 5)
        assert trio.current_time() - began == 5.0
        assert slow.runner.killed.is_set()
        await settled()
        assert world.fleet.pools["web"].members == []


@trio_test(clock="autojump")
async def test_only_while_a_rollout_runs_long_lived_leases_are_sent_to_one_generation():
    async with World(settings_of(pool_settings())).running() as world:
        pool = world.fleet.pools["web"]
        assert pool.view().newest == 0
        pool.heading = 7
        assert pool.view().newest == 7
