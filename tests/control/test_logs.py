"""`lbproxy logs`: which lines, in which order, and how following goes on."""

from contextlib import aclosing
from dataclasses import replace

import pytest
import trio
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.control.api_server import Declined
from lbproxy.control.logs import log_lines, tail
from lbproxy.model import BackendId
from lbproxy.settings import LogSettings


async def lines_of(world, **query):
    async with aclosing(log_lines(query, world.resources.outputs, world.context)) as lines:
        return [(line.get("backend"), line.get("generation"), line["line"]) async for line in lines]


def declined(world, **query):
    with pytest.raises(Declined) as caught:
        log_lines(query, world.resources.outputs, world.context)
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


@trio_test(clock="autojump")
async def test_what_is_not_there_is_said_with_what_is():
    async with World(settings_of(pool_settings())).running() as world:
        assert declined(world, source="wob") == (
            404,
            "no pool or backend 'wob' (there is: web, web.1, web.2, access)",
        )
        assert declined(world, source="web.9")[0] == 404
        assert declined(world, n="many")[0] == 400


@trio_test(clock="autojump")
async def test_following_goes_on_with_what_comes():
    async with World(settings_of(pool_settings(size=1))).running() as world:
        ring = world.member("web.1@1").runner.output
        ring.add([b"old", b"older"])
        seen = []

        async def follow():
            lines = log_lines({"n": "1", "follow": "1"}, world.resources.outputs, world.context)
            async for line in lines:
                seen.append(line["line"])  # noqa: PERF401 - they are looked at while it goes on

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            ring.add([b"new"])
            await trio.testing.wait_all_tasks_blocked()
            ring.add([b"newer", b"newest"])
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert seen == ["older", "new", "newer", "newest"]


@trio_test
async def test_the_access_log_is_read_from_its_file(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("one\ntwo\nthree\n")
    async with World(settings_of(pool_settings(size=1), log=LogSettings(access_path=str(path)))).running() as world:
        assert await lines_of(world, source="access", n="2") == [(None, None, "two"), (None, None, "three")]
        path.unlink()
        assert "No such file" in (await lines_of(world, source="access"))[0][2]
        assert declined(world, source="access", follow="1")[0] == 501
        world.context.settings = replace(world.settings, log=LogSettings(access_path="-"))
        assert declined(world, source="access")[0] == 404
        world.context.settings = replace(world.settings, log=LogSettings(access="off"))
        assert declined(world, source="access")[0] == 404


def test_the_tail_of_a_huge_file_is_whole_lines(tmp_path):
    path = tmp_path / "access.log"
    path.write_bytes(b"".join(b"%08d\n" % number for number in range(200_000)))
    lines = tail(str(path), 200_000)
    assert lines[-1] == "00199999"
    assert all(len(line) == 8 for line in lines)
    assert len(lines) < 120_000
