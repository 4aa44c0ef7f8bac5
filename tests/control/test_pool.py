"""A pool: who is fit for the table, deaths, degraded or not, free slots."""

import trio
import trio.testing
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.control.ejection import Ejection
from lbproxy.control.pool import lowest_free
from lbproxy.link.grid import Counter
from lbproxy.model import BackendId
from lbproxy.settings import HealthSettings, PassiveSettings
from lbproxy.telemetry.events import BackendHealthy


def test_new_slots_are_the_lowest_free_ones():
    assert lowest_free([1, 3], 3) == [2, 4, 5]
    assert lowest_free([], 2) == [1, 2]
    assert lowest_free([7], 0) == []


@trio_test(clock="autojump")
async def test_a_pool_is_degraded_while_fewer_than_its_size_are_ready():
    async with World(settings_of(pool_settings())).running() as world:
        pool = world.fleet.pools["web"]
        assert (pool.ready, pool.is_degraded) == (2, False)
        world.member("web.1@1").runner.fall()
        assert (pool.ready, pool.is_degraded) == (1, True)


@trio_test(clock="autojump")
async def test_leases_are_given_by_kind_without_the_zeros():
    async with World(settings_of(pool_settings())).running() as world:
        world.count("web.1@1", Counter.REQUEST)
        world.count("web.1@1", Counter.WEBSOCKET, 2)
        pool = world.fleet.pools["web"]
        assert pool.leases(world.member("web.1@1")) == {"request": 1, "websocket": 2}
        assert pool.leases(world.member("web.2@1")) == {}


@trio_test(clock="autojump")
async def test_deaths_before_the_watch_begins_are_forgotten():
    async with World(settings_of(pool_settings())).running() as world:
        member = world.member("web.1@1")
        member.runner.die()
        assert member.died.is_set()
        member.begin_watch()
        assert not member.died.is_set()


@trio_test(clock="autojump")
async def test_the_table_lists_backends_in_the_order_of_their_slots():
    async with World(settings_of(pool_settings(size=11))).running() as world:
        await trio.testing.wait_all_tasks_blocked()
        slots = [view.id.slot for view in world.fleet.pools["web"].view().backends]
        assert slots == list(range(1, 12))


@trio_test(clock="autojump")
async def test_an_ejected_backend_rests_in_the_table_until_it_is_back_or_needed():
    passive = PassiveSettings(errors=2, eject_s=10.0)
    async with World(settings_of(pool_settings(health=HealthSettings(passive=passive)))).running() as world:
        pool, fleet = world.fleet.pools["web"], world.fleet
        one, two = world.member("web.1@1"), world.member("web.2@1")
        assert pool.view().reports_errors
        assert isinstance(fleet.note_errors(one.backend.id, (2, "reset")), Ejection)
        assert isinstance(fleet.note_errors(two.backend.id, (2, "reset")), str)
        assert fleet.note_errors(BackendId("other", 1, 1), (2, "reset")) is None
        view = pool.view()
        assert ([one.id.slot for one in view.backends], [one.id.slot for one in view.resting]) == ([2], [1])
        assert (pool.ready, pool.state_of(one), pool.is_degraded) == (1, "unhealthy", True)
        assert pool.why(one, trio.current_time()) == "ejected: 2 errors in 10s (the last: reset); back in 10.0s"
        back_at = fleet.settle_ejections()
        await trio.sleep_until(back_at)
        fleet.publish()
        assert [one.id.slot for one in world.workers.tables[-1].pools[0].backends] == [1, 2]
        assert world.of(BackendHealthy)[-1].why == "its ejection is over"
        fleet.note_errors(one.backend.id, (2, "reset"))
        fleet.publish()
        two.runner.fall()
        await trio.testing.wait_all_tasks_blocked()
        assert [one.id.slot for one in world.workers.tables[-1].pools[0].backends] == [1]
        assert pool.view().resting == ()
