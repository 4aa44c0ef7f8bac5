"""`lbproxy logs`: which lines, in which order, and how following goes on."""

from contextlib import aclosing

import pytest
import trio
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.control.api_server import Declined
from lbproxy.control.logs import log_lines
from lbproxy.model import BackendId


async def lines_of(world, **query):
    async with aclosing(log_lines(query, world.resources.outputs, world.context, trio.Event())) as lines:
        return [(line.get("backend"), line.get("generation"), line["line"]) async for line in lines]


def lines_are_followed(world, **query):
    return log_lines({**query, "follow": "1"}, world.resources.outputs, world.context, trio.Event()) is not None


def declined(world, **query):
    with pytest.raises(Declined) as caught:
        log_lines(query, world.resources.outputs, world.context, trio.Event())
    return caught.value.answer.status, caught.value.answer.values["error"]


@trio_test(clock="autojump")
async def test_a_pool_a_backend_or_a_generation_can_be_asked_for():
    async with World(settings_of(pool_settings(), pool_settings("api", size=1))).running() as world:
        for name, text in (("web.1@1", b"a"), ("web.2@1", b"b"), ("api.1@1", b"c")):
            world.member(name).runner.output.add([text])
        world.resources.outputs.ring(BackendId("web", 1, 2)).add([b"d"])
        assert await lines_of(world) == [
            ("web.1@1", 1, "a"),
            ("web.2@1", 1, "b"),
            ("api.1@1", 1, "c"),
            ("web.1@2", 2, "d"),
        ]
        assert await lines_of(world, source="web") == [("web.1@1", 1, "a"), ("web.2@1", 1, "b"), ("web.1@2", 2, "d")]
        assert await lines_of(world, source="web.1") == [("web.1@1", 1, "a"), ("web.1@2", 2, "d")]
        assert await lines_of(world, source="web.1", gen="2") == [("web.1@2", 2, "d")]
        assert await lines_of(world, n="1") == [("web.1@2", 2, "d")]
        assert await lines_of(world, n="0") == []
        assert await lines_of(world, source="web.1@2") == [("web.1@2", 2, "d")]
        assert await lines_of(world, source="web@1", gen="1") == [("web.1@1", 1, "a"), ("web.2@1", 1, "b")]
        assert await lines_of(world, since="60", n="1") == [("web.1@2", 2, "d")]
        assert await lines_of(world, since="0") == []


@trio_test(clock="autojump")
async def test_what_is_not_there_is_said_with_what_is():
    async with World(settings_of(pool_settings())).running() as world:
        assert declined(world, source="wob") == (
            404,
            "no pool or backend 'wob' (there is: web, web.1, web.2, access)",
        )
        assert declined(world, source="web.9")[0] == 404
        assert declined(world, n="many")[0] == 400
        assert declined(world, source="web.1@x")[0] == 400
        assert declined(world, source="web.1@1", gen="2")[0] == 400
        assert declined(world, source="web.1@9") == (404, "no lines of generation 9 of web.1 (there is: 1)")
        assert declined(world, gen="9") == (404, "no lines of generation 9 (there is: 1)")
        assert lines_are_followed(world, source="web.1@9"), "of a generation to come"


@trio_test(clock="autojump")
async def test_following_goes_on_with_what_comes():
    async with World(settings_of(pool_settings(size=1))).running() as world:
        ring = world.member("web.1@1").runner.output
        ring.add([b"old", b"older"])
        seen, stopped = [], trio.Event()

        async def follow():
            lines = log_lines({"n": "1", "follow": "1"}, world.resources.outputs, world.context, stopped)
            async for line in lines:
                seen.append(line["line"])  # noqa: PERF401 - they are looked at while it goes on

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            ring.add([b"new"])
            await trio.testing.wait_all_tasks_blocked()
            ring.add([b"newer", b"newest"])
            await trio.testing.wait_all_tasks_blocked()
            ring.add([b"the last"])
            stopped.set()  # lbproxy stops: the last lines are read, then the lines end
        assert seen == ["older", "new", "newer", "newest", "the last"]
