"""A backend over its limit is replaced: one at a time, not during a reload, not again and again."""

from contextlib import asynccontextmanager

import trio
from support.trio_test import trio_test

from control.fakes import Behaviour, World, pool_settings, settings_of
from lbproxy.control.memory_limits import MemoryLimits
from lbproxy.control.plan import ScaleRequest
from lbproxy.control.reloader import Reloader
from lbproxy.control.usage_book import EVERY_S
from lbproxy.settings import RestartSettings
from lbproxy.supervise.usage import Usage
from lbproxy.telemetry.events import Notice, ReloadDone, ReloadStarted

MIB = 1 << 20
LIMITED = RestartSettings(max_memory_bytes=512 * MIB)


class Uses:
    """What backends use, by slot (as long as they live) or for good. Their resident sets are 100 MiB more."""

    def __init__(self, world):
        self.world = world
        self.by_pid, self.always, self.asked = {}, {}, []

    def now(self):
        members = [member for pool in self.world.fleet.pools.values() for member in pool.members]
        return {
            member.backend.pid: self.always.get(member.spec.slot, self.by_pid.get(member.backend.pid, 0))
            for member in members
        }

    async def look(self):
        """As the usage book does."""
        while True:
            usages = {pid: Usage(0.0, used + 100 * MIB) for pid, used in self.now().items()}
            self.world.context.measured.usage.take([], usages)
            await trio.sleep(EVERY_S)

    async def __call__(self, leaders):
        await trio.lowlevel.checkpoint()
        self.asked.append(set(leaders))
        return {pid: used for pid, used in self.now().items() if pid in leaders}

    def grow(self, slot, mib=534):
        self.by_pid[self.world.member(f"web.{slot}@1").backend.pid] = mib * MIB - slot


@asynccontextmanager
async def limited(size=2, restart=LIMITED, behave=lambda spec: Behaviour()):
    settings = settings_of(pool_settings(size=size, restart=restart), pool_settings("free"))
    async with World(settings, behave).running() as world:
        reloader = Reloader(world.context, lambda: settings)
        await world.nursery.start(reloader.run)
        uses = Uses(world)
        world.nursery.start_soon(MemoryLimits(world.context, reloader, uses).run)
        world.nursery.start_soon(uses.look)
        yield world, uses, reloader


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_backend_over_its_limit_is_replaced_and_the_events_say_why():
    async with limited() as (world, uses, _):
        await trio.sleep(1.4 * EVERY_S)
        assert uses.asked == [], "the resident set is below the limit"
        uses.grow(1, 450)
        await trio.sleep(EVERY_S)
        assert uses.asked == [{world.member("web.1@1").backend.pid}]
        assert world.of(ReloadStarted) == [], "the exact size is below the limit"
        before = world.member("web.2@1").backend.pid
        uses.grow(2)
        await world.wait_for(ReloadDone)
        [started], [done] = world.of(ReloadStarted), world.of(ReloadDone)
        assert (started.verb, started.backend, started.asked_by) == ("recycle", "web.2", {"how": "max_memory"})
        assert started.sizes == (1,)
        assert (done.verb, done.backend, done.result, done.generation) == ("recycle", "web.2", "ok", 1)
        assert done.why == started.why == "uses 534 MiB, more than max_memory 512MiB"
        assert world.member("web.2@1").backend.pid != before
        await trio.sleep(9.5 * EVERY_S)
        assert len(world.of(ReloadDone)) == 1


@trio_test(clock="autojump", timeout_s=1000)
async def test_the_worst_goes_first_and_the_next_when_that_is_over():
    async with limited(size=3) as (world, uses, _):
        for slot in (3, 1, 2):
            uses.grow(slot)
        await world.wait_for(ReloadDone, 3)
        order = [(type(event).__name__, event.backend) for event in world.events if hasattr(event, "verb")]
        assert order == [(name, f"web.{slot}") for slot in (1, 2, 3) for name in ("ReloadStarted", "ReloadDone")]


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_recycle_waits_for_the_end_of_a_reload():
    async with limited(behave=lambda spec: Behaviour(ready_after_s=30.0)) as (world, uses, reloader):
        uses.grow(1)
        await reloader.start(ScaleRequest((("web", 3),)))
        looked = len(uses.asked)
        await world.wait_for(ReloadDone)
        assert len(uses.asked) == looked
        await world.wait_for(ReloadDone, 2)
        assert [done.verb for done in world.of(ReloadDone)] == ["scale", "recycle"]
        assert len(world.fleet.pools["web"].members) == 3


@trio_test(clock="autojump", timeout_s=10_000)
async def test_a_backend_that_is_over_at_once_is_replaced_ever_more_seldom():
    async with limited() as (world, uses, _):
        uses.always = {1: 600 * MIB}
        await trio.sleep(1001)
        assert len(world.of(ReloadStarted)) == 5, "after 60, 120, 240 and 480 s"
        notices = [notice.text for notice in world.of(Notice)]
        assert notices[0] == (
            "web.1 uses 600 MiB, more than max_memory 512MiB, 4s after it was replaced for that: "
            "it is replaced again in 56s (is the limit too low?)"
        )
        assert len(notices) == 5
        uses.always = {}
        await trio.sleep(1001)
        assert len(world.of(Notice)) == len(notices)


@trio_test(clock="autojump", timeout_s=10_000)
async def test_a_successor_that_does_not_come_up_is_not_tried_at_once_again():
    broken = []
    async with limited(behave=lambda spec: Behaviour(breaks=bool(broken))) as (world, uses, _):
        broken.append(True)
        uses.grow(1)
        await trio.sleep(51)
        [done] = world.of(ReloadDone)
        assert (done.result, done.why) == ("rolled_back", "web.1@1: exit code 1")
        assert world.fleet.pools["web"].ready == 2, "the old one serves on"


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_backend_that_is_drained_by_command_is_left_alone():
    async with limited() as (world, uses, _):
        uses.grow(1)
        member = world.member("web.1@1")
        member.held, member.published = True, False
        await trio.sleep(3.5 * EVERY_S)
        assert world.of(ReloadStarted) == []
        assert uses.asked == []


@trio_test(clock="autojump", timeout_s=1000)
async def test_without_a_limit_nothing_is_measured():
    async with limited(restart=RestartSettings()) as (_, uses, _):
        uses.grow(1)
        await trio.sleep(3.5 * EVERY_S)
        assert uses.asked == []
