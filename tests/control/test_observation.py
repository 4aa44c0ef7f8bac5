"""What is measured while a change of a pool runs."""

import os

import trio
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.control.observation import Observation, resident_bytes
from lbproxy.link.messages import Exchanges, Incidents, Increase, QueueWaits, Stats
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S

NONE = (0,) * (len(DURATION_BOUNDS_S) + 1)


def counted(waits, closes):
    """A worker's message: so many requests waited, and so many Closes by code."""
    buckets = (waits, *NONE[1:])
    incidents = tuple(Incidents("websocket_close", ("web", code, "proxy"), number) for code, number in closes.items())
    other = (Incidents("websocket_close", ("api", "1001", "proxy"), 9), Incidents("retry", ("web", "reset"), 9))
    increase = Increase(
        (), (QueueWaits("web", buckets, 0.5, waits / 10), QueueWaits("api", buckets, 0.5, 9.0)), (*incidents, *other)
    )
    return Stats(1, 0, 0, {}, increase=increase)


@trio_test
async def test_only_what_comes_meanwhile_and_only_of_this_pool():
    async with World(settings_of(pool_settings(size=1))).running() as world:
        tallies = world.context.measured.tallies
        tallies.add(Stats(0, 0, 0, {}), counted(7, {"1001": 2}))
        observation = Observation(world.context, world.fleet.pools["web"])
        tallies.add(Stats(0, 0, 0, {}), counted(3, {"1001": 4, "1000": 1}))
        await observation.take_in()
        assert (observation.held, observation.longest_hold_s) == (3, 0.3)
        assert observation.websocket_closes == {"1001": 4, "1000": 1}
        assert observation.peak_memory_bytes is None


@trio_test(clock="autojump", timeout_s=100)
async def test_memory_is_looked_at_and_its_peak_is_kept():
    async with World(settings_of(pool_settings(size=1))).running() as world:
        (member,) = world.fleet.pools["web"].members
        seen = iter((5, 9, 7))

        async def look(pids):
            assert pids == {member.backend.pid}
            return {member.backend.pid: next(seen)}

        world.context.resident_bytes = look
        observation = Observation(world.context, world.fleet.pools["web"])
        with trio.move_on_after(2.5):
            await observation.run()
        assert observation.peak_memory_bytes == 9


@trio_test
async def test_the_look_is_at_whole_sessions():
    (size_bytes,) = (await resident_bytes({os.getsid(0)})).values()
    assert size_bytes > 1_000_000
    assert await resident_bytes({2**22 + 1}) == {}


@trio_test
async def test_generations_are_compared_over_the_same_time():
    async with World(settings_of(pool_settings(size=1))).running() as world:
        tallies = world.context.measured.tallies

        def answered(generation, status, number):
            part = Exchanges("web", "GET", status, (number, *NONE[1:]), 0.5, 0, 0, generation)
            tallies.add(Stats(0, 0, 0, {}), Stats(1, 0, 0, {}, increase=Increase((part,))))

        answered(1, 200, 1000)
        answered(1, 500, 9)
        observation = Observation(world.context, world.fleet.pools["web"])
        answered(1, 200, 90)
        answered(1, 502, 10)
        answered(2, 200, 50)
        await observation.take_in()
        old, new = observation.compared
        assert (old["generation"], old["requests"], old["errors"]) == (1, 100, 10)
        assert (new["generation"], new["requests"], new["errors"]) == (2, 50, 0)
        assert new["p99_s"] is not None
        for number in range(3, 30):
            answered(number, 200, 1)
        assert len(tallies.generations) == 8
