"""The document of a plan, against pools without processes."""

from dataclasses import replace

from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control.forecast import Forecast, Measures, measure
from lbproxy.control.history import History
from lbproxy.control.plan import ReloadRequest, plan_of
from lbproxy.link.grid import Counter
from lbproxy.settings import DrainSettings, ReloadSettings
from lbproxy.supervise.free_memory import FreeMemory
from lbproxy.supervise.usage import Usage
from lbproxy.telemetry.events import ReloadDone

MIB = 1 << 20
PLENTY = FreeMemory(1000 * MIB, None)


def forecast(world, settings, *pools, config_only=False, running=None, **known):
    """`known`: `sizes` in MiB by pid, `free`, and the `took_s` of earlier reloads."""
    request = ReloadRequest("command", pools, config_only)
    history = History(lambda record: None)
    for took_s in known.get("took_s", ()):
        history.observe(ReloadDone("r1", "web", "ok", 2, 1, took_s, 0, 0, 0, 0), 1.0)
    usage = {pid: Usage(0.0, size * MIB) for pid, size in known.get("sizes", {}).items()}
    measures = Measures(usage, known.get("free", PLENTY))
    plan = plan_of(request, "", world.context, settings)
    return Forecast(world.context, plan, history, measures).document(running)


def as_made(world, tmp_path):
    """The pools run in the directory that they would be resolved to."""
    for pool in world.fleet.pools.values():
        pool.generation = replace(pool.generation, directory=str(tmp_path))
        for member in pool.members:
            member.spec = replace(member.spec, generation=pool.generation)


@trio_test(clock="autojump", timeout_s=100)
async def test_nothing_changed_is_nothing_for_config_only_and_every_backend_for_a_reload(tmp_path):
    settings = settings_of(pool_settings(directory=str(tmp_path)))
    async with World(settings).running() as world:
        as_made(world, tmp_path)
        before = world.fleet.numbers(), world.workers.tables[-1].epoch, [*world.events]
        found = forecast(world, settings, config_only=True)
        assert (found["nothing"], found["differs"], found["pools"]["web"]["action"]) == (True, False, "unchanged")
        assert found["pools"]["web"]["kept"] == ["web.1@1", "web.2@1"]
        assert found["expected_s"] == 0.0
        found = forecast(world, settings)
        web = found["pools"]["web"]
        assert (found["nothing"], found["differs"], web["action"], web["anyway"]) == (False, False, "replaced", True)
        assert (web["from_generation"], web["generation"]) == (1, 2)
        assert (web["replaced"], web["started"], web["stopped"], web["kept"]) == (["web.1@1", "web.2@1"], [], [], [])
        assert before == (world.fleet.numbers(), world.workers.tables[-1].epoch, world.events)


@trio_test(clock="autojump", timeout_s=100)
async def test_keys_are_told_apart_by_what_they_do(tmp_path):
    old = pool_settings(directory=str(tmp_path), size=3)
    async with World(settings_of(old)).running() as world:
        as_made(world, tmp_path)
        live = replace(old, size=2, drain=DrainSettings(websocket_s=1.0))
        web = forecast(world, settings_of(live), config_only=True)["pools"]["web"]
        assert (web["action"], web["generation"], web["because"], web["live"]) == (
            *("changed", 1, ["size"]),
            ["drain.websocket"],
        )
        assert (web["kept"], web["stopped"], web["from_size"], web["size"]) == (
            *(["web.1@1", "web.2@1"], ["web.3@1"]),
            *(3, 2),
        )
        assert (web["before"], web["after"]) == (None, None)
        hooks = replace(live.reload, before=("check",), after=("tell",))
        made = replace(live, command=("other",), env=(("A", "1"),), size=4, reload=hooks)
        web = forecast(world, settings_of(made), config_only=True)["pools"]["web"]
        assert (web["action"], web["because"], web["anyway"]) == ("replaced", ["command", "env", "size"], False)
        assert (len(web["replaced"]), web["started"]) == (3, ["web.4@2"])
        assert (web["before"], web["after"]) == (("check",), ("tell",))
        live = replace(live, reload=hooks)
        web = forecast(world, settings_of(live), config_only=True)["pools"]["web"]
        assert (web["before"], web["after"]) == (None, ("tell",)), "nothing is made"


@trio_test(clock="autojump", timeout_s=100)
async def test_pools_listeners_and_settings_of_the_whole_file(tmp_path):
    web, old, new = (pool_settings(name, size=1, directory=str(tmp_path)) for name in ("web", "old", "new"))
    one, two = ((Address("127.0.0.1", port),) for port in (1, 2))
    fixed = [pool_settings("fixed", 1, command=None, targets=to, directory=str(tmp_path)) for to in (one, two)]
    async with World(settings_of(web, old, fixed[0])).running() as world:
        as_made(world, tmp_path)
        world.sockets.taken.add("127.0.0.1:82")
        world.count("old.1@1", Counter.WEBSOCKET, 3)
        after = settings_of(web, new, fixed[1], listeners=("127.0.0.1:81", "127.0.0.1:82"), workers=2)
        found = forecast(world, after, config_only=True)
        actions = {name: pool["action"] for name, pool in found["pools"].items()}
        assert actions == {"web": "unchanged", "new": "added", "fixed": "replaced", "old": "removed"}
        assert found["pools"]["new"]["started"] == ["new.1@1"]
        assert found["pools"]["fixed"]["because"] == ["targets"]
        assert found["pools"]["old"]["stopped"] == ["old.1@1"]
        assert found["connections"] == found["pools"]["old"]["connections"] == {"websocket": 3}
        assert found["pools"]["old"]["drain_at_most_s"] == 10.0
        assert [one["address"] for one in found["listeners"]["added"]] == ["127.0.0.1:81", "127.0.0.1:82"]
        assert [one["address"] for one in found["listeners"]["gone"]] == ["127.0.0.1:80"]
        assert found["would_fail"] == "cannot listen on 127.0.0.1:82: address already in use"
        assert found["workers"] == {"now": 1, "then": 2}
        part = forecast(world, after, "web", config_only=True)
        assert (part["nothing"], part["whole"], list(part["pools"])) == (True, False, ["web"])


@trio_test(clock="autojump", timeout_s=100)
async def test_memory_is_a_batch_of_the_largest_and_time_is_the_median(tmp_path):
    settings = settings_of(
        pool_settings(size=4, directory=str(tmp_path), reload=ReloadSettings(max_surge=2)),
    )
    async with World(settings).running() as world:
        as_made(world, tmp_path)
        sizes = {1: 100, 2: 100, 3: 100, 4: 150}
        took_s = (9.0, 1.0, 2.0, 3.0, 4.0, 50.0)
        found = forecast(world, settings, sizes=sizes, took_s=took_s, free=FreeMemory(900 * MIB, 200 * MIB))
        assert found["memory"] == {
            "now_bytes": 450 * MIB,
            "peak_bytes": 750 * MIB,
            "at_most_bytes": 1050 * MIB,
            "free_host_bytes": 900 * MIB,
            "free_cgroup_bytes": 200 * MIB,
            "fits": False,
            "not_measured": [],
        }
        assert found["pools"]["web"]["memory"]["at_a_time"] == 2
        assert (found["expected_s"], found["pools"]["web"]["from_reloads"]) == (3.0, 5)
        grown = settings_of(replace(settings.pools[0], size=8))
        assert forecast(world, grown, config_only=True, took_s=[4.0])["expected_s"] == 2.0, "half of them start"
        found = forecast(world, settings)
        assert (found["memory"]["not_measured"], found["expected_s"]) == (["web"], None)


@trio_test(clock="autojump", timeout_s=100)
async def test_backends_that_leave_already_are_not_planned_again(tmp_path):
    settings = settings_of(pool_settings(directory=str(tmp_path)))
    async with World(settings).running() as world:
        as_made(world, tmp_path)
        world.member("web.1@1").runner.drain()
        found = forecast(world, settings, running="another reload is running (r1)")
        assert found["running"] == "another reload is running (r1)"
        assert (found["pools"]["web"]["replaced"], found["pools"]["web"]["started"]) == (["web.2@1"], ["web.1@2"])


@trio_test
async def test_what_is_measured_is_by_the_pids_of_the_backends():
    async with World(settings_of(pool_settings())).running() as world:
        measures = await measure(world.context)
        assert set(measures.usage) <= {1, 2}
        assert measures.free.host_bytes
