"""What one lbproxy remembers, the next one knows."""

import json
from dataclasses import replace

import trio
import trio.testing
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.control.audit import Audit
from lbproxy.control.memory import Memory
from lbproxy.control.plan import Plan
from lbproxy.control.reload import Reload
from lbproxy.telemetry.events import Notice


@trio_test
async def test_history_generations_and_numbers_go_on(tmp_path):
    settings = settings_of(pool_settings(size=1))
    async with World(settings).running() as world:
        world.context.emit = world.log.emit
        memory = Memory(str(tmp_path), world.context, Audit(world.emit))
        memory.restore()
        first = replace(world.fleet.pools["web"].generation, directory=str(tmp_path))
        world.context.generations.served(first)
        async with trio.open_nursery() as nursery:
            await nursery.start(memory.run, world.log)
            await Reload(world.context, Plan("r1", "USR2", settings, (replace(first, env=(("A", "1"),)),))).run()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    async with World(settings).running() as world:
        memory = Memory(str(tmp_path), world.context, Audit(world.emit))
        memory.restore()
        assert [(record["id"], record["result"]) for record in memory.history.records] == [("r1", "ok")]
        assert world.context.ids.next("r") == "r2"
        assert world.fleet.next_number("web") == 3
        assert world.context.generations.numbers("web") == [1]
        assert world.context.generations.find("web", 1).generation == first


def test_nonsense_in_the_files_is_said_and_ignored(tmp_path):
    for name in ("history", "generations"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"version": 1, "value": [{"x": 1}]}))

    async def main():
        async with World(settings_of(pool_settings())).running() as world:
            memory = Memory(str(tmp_path), world.context, Audit(world.emit))
            memory.restore()
            said = [event.text for event in world.of(Notice)]
            assert [line.split(" is ignored: ")[0] for line in said] == [
                f"{tmp_path}/history.json",
                f"{tmp_path}/generations.json",
            ]
            assert not memory.history.records

    trio.run(main)
