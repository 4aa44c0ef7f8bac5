"""Named targets: pools follow their names, in virtual time."""

import socket
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from support.trio_test import trio_test

from control.fakes import Behaviour, World, pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control.diff import target_of
from lbproxy.control.plan import ReloadRequest, plan_of
from lbproxy.control.reload import Reload
from lbproxy.control.resolver import AGAIN_S, AGAIN_UNKNOWN_S, FORGET_S, READY_S, NotFound, Resolver, look_up
from lbproxy.telemetry.events import BackendDrained, BackendDraining, Notice, PoolResolved, ReloadDone

APP = Address("app.internal", 8080)
OTHER = Address("10.0.0.9", 80)


class Answers(dict):
    """A name server: name -> addresses; what is not there is not found."""

    asked = 0

    async def look_up(self, host, port):
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if host not in self:
            raise NotFound("Name or service not known")
        return self[host]


def named(*targets, name="web"):
    return pool_settings(name, command=None, targets=targets, size=len(targets))


@asynccontextmanager
async def resolving(answers, *pools, behave=lambda spec: Behaviour(ready_after_s=0.5)):
    world = World(settings_of(*pools), behave)
    async with world.running():
        resolver = Resolver(world.context, answers.look_up)
        await world.nursery.start(resolver.run)
        await trio.testing.wait_all_tasks_blocked()
        yield world, resolver


def where(world, pool="web"):
    """Slot and address of each backend."""
    return {member.spec.slot: target_of(member.spec).host for member in world.fleet.pools[pool].members}


def texts(world):
    return [event.text for event in world.of(Notice)]


@trio_test(clock="autojump", timeout_s=10_000)
async def test_all_addresses_of_a_name_become_backends_and_other_pools_do_not_wait():
    answers = Answers()
    async with resolving(answers, named(APP), pool_settings("api")) as (world, _):
        assert world.fleet.pools["api"].ready == 2
        assert (where(world), world.fleet.pools["web"].size) == ({}, 1)
        assert world.fleet.pools["web"].is_degraded
        answers["app.internal"] = ["10.0.0.1", "10.0.0.2"]
        await trio.sleep(AGAIN_UNKNOWN_S + 1)
        assert where(world) == {1: "10.0.0.1", 2: "10.0.0.2"}
        pool = world.fleet.pools["web"]
        assert (pool.ready, pool.size, pool.is_degraded) == (2, 2, False)
        assert world.of(PoolResolved)[0].came == ("10.0.0.1:8080", "10.0.0.2:8080")
        assert "web.1@1" in world.workers.served


@trio_test(clock="autojump", timeout_s=10_000)
async def test_an_address_that_goes_is_drained_when_its_successor_is_ready_and_the_others_keep_their_slots():
    answers = Answers({"app.internal": ["10.0.0.1", "10.0.0.2"]})
    async with resolving(answers, named(APP)) as (world, _):
        world.workers.busy = {"web.1@1"}
        answers["app.internal"] = ["10.0.0.2", "10.0.0.3"]
        await trio.sleep(AGAIN_S + 0.1)
        assert where(world) == {1: "10.0.0.1", 2: "10.0.0.2", 3: "10.0.0.3"}
        assert not world.of(BackendDraining), "its successor is not ready yet"
        await trio.sleep(1)
        assert [event.backend for event in world.of(BackendDraining)] == ["web.1@1"]
        assert world.workers.served == ["web.2@1", "web.3@1"]
        world.workers.release("web.1@1")
        await world.wait_for(BackendDrained)
        await trio.sleep(1)
        assert where(world) == {2: "10.0.0.2", 3: "10.0.0.3"}
        assert world.of(PoolResolved)[-1].gone == ("10.0.0.1:8080",)
        answers["app.internal"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        await trio.sleep(AGAIN_S + 1)
        assert where(world) == {1: "10.0.0.1", 2: "10.0.0.2", 3: "10.0.0.3"}


@trio_test(clock="autojump", timeout_s=10_000)
async def test_an_error_or_an_empty_answer_keeps_what_there_is_and_is_said_once():
    answers = Answers({"app.internal": ["10.0.0.1"]})
    async with resolving(answers, named(APP)) as (world, _):
        del answers["app.internal"]
        await trio.sleep(3 * AGAIN_S)
        answers["app.internal"] = []
        await trio.sleep(3 * AGAIN_S)
        assert where(world) == {1: "10.0.0.1"}
        why = "(Name or service not known): its addresses stay as they were"
        assert texts(world) == [f"the target app.internal:8080 cannot be resolved {why}"]
        answers["app.internal"] = ["10.0.0.1"]
        await trio.sleep(AGAIN_S)
        assert texts(world)[1:] == ["the target app.internal:8080 is resolved again"]
        assert not world.of(BackendDraining)
        assert len(world.of(PoolResolved)) == 1


@trio_test(clock="autojump", timeout_s=10_000)
async def test_an_address_that_goes_does_not_wait_for_a_successor_that_never_comes():
    answers = Answers({"app.internal": ["10.0.0.1"]})

    def behave(spec):
        return Behaviour(ready_after_s=0.5 if spec.slot == 1 else 1000.0)

    async with resolving(answers, named(APP), behave=behave) as (world, _):
        answers["app.internal"] = ["10.0.0.2"]
        await trio.sleep(AGAIN_S + READY_S - 1)
        assert not world.of(BackendDraining)
        await trio.sleep(3)
        assert where(world) == {2: "10.0.0.2"}


@trio_test(clock="autojump", timeout_s=10_000)
async def test_a_reload_looks_its_names_up_first_and_keeps_what_a_missing_name_would_replace():
    answers = Answers()
    async with resolving(answers, named(OTHER)) as (world, resolver):

        async def reload(*targets):
            settings = settings_of(named(*targets))
            await resolver.learn(settings)
            await Reload(world.context, plan_of(ReloadRequest("command"), "r", world.context, settings)).run()
            await trio.sleep(1)
            return world.of(ReloadDone)[-1].result

        assert await reload(APP) == "ok"
        assert where(world) == {1: "10.0.0.9"}, "nothing else is there yet"
        answers["app.internal"] = ["10.0.0.1"]
        await trio.sleep(AGAIN_UNKNOWN_S + 5)
        assert where(world) == {2: "10.0.0.1"}
        answers["b.internal"] = ["10.0.0.7"]
        assert await reload(APP, Address("b.internal", 1)) == "ok"
        assert where(world) == {1: "10.0.0.7", 2: "10.0.0.1"}
        before = answers.asked
        assert await reload(OTHER) == "ok"
        assert [*where(world).values()] == ["10.0.0.9"]
        await trio.sleep(FORGET_S + 2 * AGAIN_S)
        asked = answers.asked
        assert asked > before
        await trio.sleep(5 * AGAIN_S)
        assert answers.asked == asked, "nobody has these names any more"
        assert world.fleet.names.found == {}


@trio_test
async def test_the_systems_resolver_is_asked_and_localhost_is_one_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await look_up("localhost", port) == ["127.0.0.1"]
    assert len(await look_up("localhost", port)) == 1
    with pytest.raises(NotFound):
        await look_up("no-such-name.invalid", 1)
    with pytest.raises(NotFound):
        await look_up("a" * 70, 1)


@trio_test
async def test_of_two_loopback_addresses_the_one_that_answers_is_used(monkeypatch):
    async def both(host, port, **more):
        return [(socket.AF_INET6, 0, 0, "", ("::1", port, 0, 0)), (socket.AF_INET, 0, 0, "", ("127.0.0.1", port))]

    with socket.socket(socket.AF_INET6) as server:
        with suppress(OSError):
            server.bind(("::1", 0))
        if not server.getsockname()[1]:
            pytest.skip("no IPv6 here")
        server.listen()
        monkeypatch.setattr("lbproxy.control.resolver.trio.socket.getaddrinfo", both)
        port = server.getsockname()[1]
        assert await look_up("localhost", port) == ["::1"]
    assert await look_up("localhost", port) == ["127.0.0.1"]
