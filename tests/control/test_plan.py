"""What each request comes to, before anything is touched."""

from dataclasses import replace

import pytest
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control.plan import (
    CannotDo,
    RestartRequest,
    RollbackRequest,
    ScaleRequest,
    UnknownPool,
    one_more,
    plan_of,
    removed_pools,
    workers_after,
)

FIXED = pool_settings("fixed", size=1, command=None, targets=(Address("127.0.0.1", 1),))


def plan(world, request, settings=None):
    return plan_of(request, "r1", world.context, settings)


@trio_test(clock="autojump", timeout_s=100)
async def test_a_rollback_says_what_is_not_as_in_the_file(tmp_path):
    web = pool_settings("web", directory=str(tmp_path))
    async with World(settings_of(web, FIXED)).running() as world:
        generation = replace(world.fleet.pools["web"].generation, directory=str(tmp_path))
        world.context.generations.served(generation)
        world.context.generations.served(replace(generation, number=2, env=(("A", "1"),)))
        in_file = settings_of(replace(web, size=5))
        made = plan(world, RollbackRequest("web"), in_file)
        assert (made.verb, made.same_as, made.wanted) == ("rollback", 1, (generation,))
        assert made.differs == ("size",)
        assert plan(world, RollbackRequest("web"), None).differs == ("the file is not valid",)
        assert plan(world, RollbackRequest("web"), settings_of(FIXED)).differs == ("the file does not have this pool",)
        with pytest.raises(CannotDo, match="fixed has fixed addresses"):
            plan(world, RollbackRequest("fixed"))


@trio_test(clock="autojump", timeout_s=100)
async def test_a_scale_keeps_the_generation_and_is_at_least_one():
    async with World(settings_of(pool_settings("web"), FIXED)).running() as world:
        made = plan(world, ScaleRequest((("web", 5),)))
        assert (made.verb, made.config_only, made.differs) == ("scale", True, ("size",))
        assert made.wanted[0].settings.size == 5
        for name, size, error in (
            ("web", 0, CannotDo),
            ("web", 1001, CannotDo),
            ("web", 10**9, CannotDo),
            ("nope", 2, UnknownPool),
            ("fixed", 2, CannotDo),
        ):
            with pytest.raises(error):
                plan(world, ScaleRequest(((name, size),)))
        assert one_more(world.context, 1) == (("web", 3),)
        world.fleet.pools["web"].settings = replace(world.fleet.pools["web"].settings, size=1)
        assert one_more(world.context, -1) == ()
        world.fleet.pools["web"].settings = replace(world.fleet.pools["web"].settings, size=1000)
        assert one_more(world.context, 1) == ()


@trio_test(clock="autojump", timeout_s=100)
async def test_a_restart_replaces_one_slot():
    async with World(settings_of(pool_settings("web", size=3))).running() as world:
        made = plan(world, RestartRequest("web", 2))
        pool = world.fleet.pools["web"]
        generation, change = made.change(pool, made.wanted[0], lambda: 99, is_new=False)
        assert generation.number == 1
        assert [spec.slot for spec in change.make] == [member.spec.slot for member in change.replace] == [2]
        assert [member.spec.slot for member in change.keep] == [1, 3]
        assert (made.verb, made.trigger, made.backend, made.why) == ("restart", "command", "web.2", None)
        made = plan(world, RestartRequest("web", 2, "uses 534 MiB"))
        assert (made.verb, made.trigger, made.backend, made.why) == ("recycle", "max_memory", "web.2", "uses 534 MiB")
        with pytest.raises(CannotDo, match=r"there is no backend web\.7"):
            plan(world, RestartRequest("web", 7))


@trio_test(clock="autojump", timeout_s=100)
async def test_a_reload_adds_workers_and_ends_none_and_removes_what_the_file_has_not():
    web, old = pool_settings("web"), pool_settings("old")
    async with World(settings_of(web, old)).running() as world:
        counts = [workers_after(world.context, settings_of(web, workers=number)) for number in (0, 1, 2, 9)]
        assert counts == [1, 1, 2, 2], "at most as many as the grid has rows"
        assert [pool.name for pool in removed_pools(world.context, settings_of(web))] == ["old"]
