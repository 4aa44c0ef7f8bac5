"""One reload at a time, one more after a signal, nothing touched by a configuration that is not valid."""

from dataclasses import replace

import pytest
import trio
import trio.testing
from support.trio_test import trio_test

from control.fakes import Behaviour, World, pool_settings, settings_of
from lbproxy.config.problems import ConfigInvalid, Problem
from lbproxy.control.context import Hooks
from lbproxy.control.plan import CannotDo, ReloadRequest, UnknownPool, resolve_all
from lbproxy.control.reloader import ReloadBusy, Reloader
from lbproxy.settings import PoolSettings, ReloadSettings
from lbproxy.supervise.hook import Ended
from lbproxy.telemetry.events import ConfigRejected, Notice, ReloadDone, ReloadFinished, ReloadStarted

# The configuration is read in a thread, so time is real here, and short.
QUICK = Behaviour(ready_after_s=0.01, stops_in_s=0.0)


class Running:
    """A reloader in its world."""

    def __init__(self, tmp_path, load=None):
        pool = pool_settings(size=1, directory=str(tmp_path), reload=ReloadSettings(min_ready_s=0.0))
        self.settings = settings_of(pool)
        self.world = World(self.settings, lambda spec: QUICK)
        self.reloader = Reloader(self.world.context, load or (lambda: self.settings))

    async def wait_finished(self, count):
        await self.world.wait_for(ReloadFinished, count)
        await trio.testing.wait_all_tasks_blocked()


def reloading(test):
    @trio_test
    async def run(tmp_path):
        running = Running(tmp_path)
        async with running.world.running():
            await running.world.nursery.start(running.reloader.run)
            await test(running)

    run.__name__ = test.__name__
    return run


async def _busy(running):
    assert await running.reloader.start(ReloadRequest("command")) == "r1"
    with pytest.raises(ReloadBusy):
        await running.reloader.start(ReloadRequest("command"))
    await running.wait_finished(1)
    assert await running.reloader.start(ReloadRequest("command")) == "r2"
    await running.wait_finished(2)


def test_a_second_reload_is_busy_until_the_first_is_over(tmp_path):
    reloading(_busy)(tmp_path)


async def _abort_late(running):
    may_end = trio.Event()

    async def run(hook):
        await may_end.wait()
        return Ended(None)

    async def record_of(id, pool):
        return {}

    running.world.context.hooks = Hooks(run, record_of)
    running.settings = settings_of(
        replace(running.settings.pools[0], reload=ReloadSettings(min_ready_s=0.0, after=("x",)))
    )
    await running.reloader.start(ReloadRequest("command"))
    await running.world.wait_for(ReloadDone, 1)
    with pytest.raises(CannotDo, match="nothing to abort: r1 has its verdict"):
        running.reloader.abort(None)
    may_end.set()
    await running.wait_finished(1)
    assert running.world.of(ReloadFinished)[0].exit_code == 0


def test_a_reload_that_has_its_verdict_does_not_turn_around(tmp_path):
    reloading(_abort_late)(tmp_path)


async def _signals(running):
    await running.reloader.start(ReloadRequest("command"))
    for _ in range(5):
        running.reloader.signal("USR2")
    await running.wait_finished(2)
    assert [event.trigger for event in running.world.of(ReloadStarted)] == ["command", "USR2"]
    assert running.world.workers.served == ["web.1@3"]


def test_signals_during_a_reload_ask_for_exactly_one_more(tmp_path):
    reloading(_signals)(tmp_path)


async def _one_signal(running):
    running.reloader.signal("HUP")
    await running.wait_finished(1)
    assert running.world.of(ReloadDone)[0].result == "ok"


def test_a_signal_starts_a_reload(tmp_path):
    reloading(_one_signal)(tmp_path)


async def _unknown(running):
    with pytest.raises(UnknownPool, match="no pool 'api'"):
        await running.reloader.start(ReloadRequest("command", pools=("api",)))
    await running.reloader.start(ReloadRequest("command", pools=("web",)))
    await running.wait_finished(1)


def test_an_unknown_pool_is_refused_and_the_next_reload_is_free(tmp_path):
    reloading(_unknown)(tmp_path)


@trio_test
async def test_an_invalid_configuration_touches_nothing_and_is_said():
    def load():
        raise ConfigInvalid([Problem("lb.toml", 6, 1, "unknown key 'wokers'", "wokers = 4")])

    world = World(settings_of(pool_settings(size=1)), lambda spec: QUICK)
    reloader = Reloader(world.context, load)
    async with world.running():
        await world.nursery.start(reloader.run)
        with pytest.raises(ConfigInvalid):
            await reloader.start(ReloadRequest("command"))
        reloader.signal("USR2")
        await world.wait_for(ConfigRejected, 2)
        assert "unknown key 'wokers'" in world.of(ConfigRejected)[0].problems
        assert world.of(ReloadStarted) == []
        assert world.pids == 1


@trio_test
async def test_a_signal_whose_configuration_cannot_even_be_read_ends_nothing():
    def load():
        raise RuntimeError("a mistake")

    world = World(settings_of(pool_settings(size=1)), lambda spec: QUICK)
    reloader = Reloader(world.context, load)
    async with world.running():
        await world.nursery.start(reloader.run)
        reloader.signal("USR2")
        await world.wait_for(Notice)
        assert "a mistake" in world.of(Notice)[0].text


@trio_test
async def test_a_stopped_reloader_takes_no_more_wishes(tmp_path):
    running = Running(tmp_path)
    async with running.world.running():
        with trio.CancelScope() as scope:
            await running.world.nursery.start(running.reloader.run)
            scope.cancel()
        async with trio.open_nursery() as nursery:
            reloader = Reloader(running.world.context, lambda: running.settings)
            await nursery.start(reloader.run)
            nursery.cancel_scope.cancel()
        with pytest.raises(ReloadBusy):
            await reloader.start(ReloadRequest("command"))


def test_every_problem_of_what_backends_are_made_from_is_told_at_once(tmp_path):
    bad = PoolSettings("web", command=("app",), directory=str(tmp_path / "none"))
    worse = PoolSettings("api", command=("app",), directory=str(tmp_path), env_file=str(tmp_path / ".env"))
    with pytest.raises(ConfigInvalid) as caught:
        resolve_all([bad, worse], settings_of(bad, worse))
    assert "pool.web.directory" in caught.value.text
    assert ".env" in caught.value.text
    assert caught.value.text.endswith("2 errors")


@trio_test
async def test_a_preview_says_what_runs_and_changes_and_logs_nothing(tmp_path):
    running = Running(tmp_path)
    async with running.world.running():
        await running.world.nursery.start(running.reloader.run)
        plan, what_runs = await running.reloader.preview(ReloadRequest("command", config_only=True))
        assert ([wanted.settings.name for wanted in plan.wanted], plan.config_only, what_runs) == (["web"], True, None)
        await running.reloader.start(ReloadRequest("command"))
        _, what_runs = await running.reloader.preview(ReloadRequest("command"))
        assert what_runs.startswith("another reload is running (r1, reload of web by command")
        await running.wait_finished(1)
        with pytest.raises(UnknownPool):
            await running.reloader.preview(ReloadRequest("command", ("api",)))
        assert len(running.world.of(ReloadStarted)) == 1


@trio_test
async def test_a_preview_of_an_invalid_configuration_is_no_rejected_reload(tmp_path):
    def load():
        raise ConfigInvalid([Problem("lb.toml", 6, 1, "unknown key 'wokers'", "wokers = 4")])

    running = Running(tmp_path, load)
    async with running.world.running():
        await running.world.nursery.start(running.reloader.run)
        with pytest.raises(ConfigInvalid):
            await running.reloader.preview(ReloadRequest("command"))
        assert running.world.of(ConfigRejected) == []
