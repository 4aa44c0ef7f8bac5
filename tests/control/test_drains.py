"""Drains by command, in virtual time."""

import pytest
import trio
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.control.drains import Drains
from lbproxy.control.plan import CannotDo, UnknownPool
from lbproxy.telemetry.events import BackendDrained, BackendTakenBack, ReloadDone, ReloadFinished


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_drain_ends_when_the_workers_have_no_lease_any_more():
    async with World(settings_of(pool_settings(size=2))).running() as world:
        drains = Drains(world.context)
        await world.nursery.start(drains.run)
        world.workers.busy.add("web.1@1")
        id = drains.drain("web", 1, force=False)
        assert drains.drain("web", 1, force=False) == id, "who asks again waits for the same"
        await trio.sleep(3)
        assert world.workers.served == ["web.2@1"]
        assert world.of(ReloadDone) == []
        world.workers.release("web.1@1")
        await world.wait_for(ReloadFinished, 1)
        (done,) = world.of(ReloadDone)
        assert (done.verb, done.backend, done.result, done.duration_s) == ("drain", "web.1", "ok", 3.05)
        assert world.of(BackendDrained)[0].reload == id
        assert world.fleet.pools["web"].state_of(world.member("web.1@1")) == "drained"
        assert not world.fleet.pools["web"].is_degraded, "somebody wanted it so"
        for force in (False, True):
            if force:
                drains.drain("web", 2, force=True)
                await world.wait_for(ReloadFinished, 2)
            else:
                with pytest.raises(CannotDo, match="the last ready backend"):
                    drains.drain("web", 2, force=False)
        assert world.workers.served == []


@trio_test(clock="autojump", timeout_s=1000)
async def test_of_two_drains_at_once_the_second_finds_the_last_ready_backend():
    async with World(settings_of(pool_settings(size=2))).running() as world:
        drains = Drains(world.context)
        await world.nursery.start(drains.run)
        drains.drain("web", 1, force=False)
        with pytest.raises(CannotDo, match="the last ready backend"):
            drains.drain("web", 2, force=False)
        await world.wait_for(ReloadFinished, 1)
        assert world.workers.served == ["web.2@1"]


@trio_test(clock="autojump", timeout_s=1000)
async def test_undrain_ends_a_drain_that_goes_on():
    async with World(settings_of(pool_settings(size=2))).running() as world:
        drains = Drains(world.context)
        await world.nursery.start(drains.run)
        world.workers.busy.add("web.1@1")
        drains.drain("web", 1, force=False)
        await trio.sleep(1)
        drains.undrain("web", 1)
        await world.wait_for(ReloadFinished, 1)
        assert world.of(ReloadDone)[0].result == "aborted"
        assert len(world.of(BackendTakenBack)) == 1
        assert world.workers.served == ["web.1@1", "web.2@1"]
        with pytest.raises(CannotDo, match=r"web\.1 is not drained"):
            drains.undrain("web", 1)
        with pytest.raises(CannotDo, match=r"there is no backend web\.9"):
            drains.drain("web", 9, force=False)
        with pytest.raises(UnknownPool):
            drains.drain("nope", 1, force=False)
