import os
import signal
from dataclasses import replace

import pytest
import trio
import trio.testing
from support.children import PYTHON, QUICK, pool, server_pool, stage, wait_state
from support.trio_test import trio_test

from lbproxy.model import State
from lbproxy.policy.lifecycle import IllegalTransition
from lbproxy.supervise.runner import NotReady
from lbproxy.telemetry.events import BackendHealthy, BackendStarting, BackendUnhealthy

SLOW = replace(QUICK, interval_s=600.0)  # so long that only requested probes come


async def expect_not_ready(waiting, why):
    with pytest.raises(NotReady, match=why):
        await waiting


@trio_test
async def test_failed_probes_make_it_unhealthy_and_passes_bring_it_back(tmp_path):
    answer = tmp_path / "answer"
    async with stage() as here:
        backend = here.backend(server_pool(str(answer)))
        await backend.wait_ready()
        answer.write_text("503 busy")
        await wait_state(backend, State.UNHEALTHY)
        assert here.named(BackendUnhealthy)[0].why == backend.why == "GET / answered 503: 'busy'"
        probes = backend._resources.probes
        assert probes["web", True] >= 1
        assert probes["web", False] >= QUICK.fall
        answer.unlink()
        await wait_state(backend, State.READY)
        assert backend.why is None
        assert len(here.named(BackendHealthy)) == 1
        assert backend.backend.restarts == 0


@trio_test
async def test_what_workers_say_counts_like_failed_probes():
    async with stage() as here:
        backend = here.backend(server_pool(health=SLOW))
        await backend.wait_ready()
        for _ in range(SLOW.fall):
            backend.refused()
        assert backend.backend.state is State.UNHEALTHY
        assert here.named(BackendUnhealthy)[0].why == "a worker could not connect"
        await wait_state(backend, State.READY)  # in doubt it is probed soon, not after ten minutes


@trio_test
async def test_a_refusal_that_is_refuted_is_told():
    async with stage() as here:
        backend = here.backend(server_pool(health=SLOW))
        await backend.wait_ready()
        changes, refuted = [], trio.Event()
        backend.on_change = changes.append
        backend.on_reachable = lambda member: refuted.set()
        backend.refused()
        await refuted.wait()
        assert changes == []
        assert backend.backend.state is State.READY


@trio_test
async def test_nobody_refuses_what_is_not_serving():
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, "import signal; signal.pause()"))
        for _ in range(100):
            backend.refused()
        assert backend.backend.state is State.STARTING


@trio_test
async def test_a_draining_backend_stays_draining_whatever_its_probes_say_and_can_be_taken_back(tmp_path):
    answer = tmp_path / "answer"
    async with stage() as here:
        backend = here.backend(server_pool(str(answer)))
        await backend.wait_ready()
        backend.drain()
        answer.write_text("500 no")
        while backend._health.healthy:
            await backend.wait_change()
        assert backend.backend.state is State.DRAINING
        with pytest.raises(IllegalTransition):
            backend.drain()
        backend.take_back()
        assert backend.backend.state is State.UNHEALTHY
        answer.unlink()
        await wait_state(backend, State.READY)
        backend.drain()
        backend.take_back()
        assert backend.backend.state is State.READY
        with pytest.raises(IllegalTransition):
            backend.take_back()


@trio_test
async def test_one_that_was_proved_is_restarted_like_any_other():
    async with stage() as here:
        backend = here.backend(server_pool(), reload="r1")
        await backend.wait_proved(0.0)
        for restarts in (1, 2):
            os.kill(backend.backend.pid, signal.SIGKILL)
            await wait_state(backend, State.READY, after=restarts)


@trio_test
async def test_one_that_dies_while_it_is_proved_is_tried_once_more():
    async with stage() as here:
        backend = here.backend(server_pool(), reload="r1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.wait_proved, 0.3)
            await backend.wait_ready()
            os.kill(backend.backend.pid, signal.SIGKILL)
        first, second = here.named(BackendStarting)
        assert first.address != second.address
        assert backend.backend.restarts == 0


@trio_test
async def test_one_that_dies_twice_while_it_is_proved_is_given_up():
    async with stage() as here:
        backend = here.backend(server_pool(), reload="r1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                expect_not_ready, backend.wait_proved(60.0), "signal SIGKILL before it was proved, twice"
            )
            for starts in (1, 2):
                while backend.backend.state is not State.READY or len(here.named(BackendStarting)) < starts:
                    await backend.wait_change()
                os.kill(backend.backend.pid, signal.SIGKILL)
                await wait_state(backend, State.STARTING if starts == 1 else State.FAILED)


@trio_test
async def test_waiting_tasks_get_not_ready_when_it_is_stopped():
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, "import signal; print('up'); signal.pause()"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_not_ready, backend.wait_ready(), "it is stopping")
            await backend.output.wait_newer(0)
            await backend.stop()
        with pytest.raises(NotReady, match="it is stopping"):
            await backend.wait_proved(0.0)


@trio_test
async def test_one_that_never_stays_ready_is_not_proved_for_ever(tmp_path):
    answer = tmp_path / "answer"
    async with stage() as here:
        health = replace(QUICK, fall=1000, start_timeout_s=0.3)
        backend = here.backend(server_pool(str(answer), health=health), reload="r1")
        await backend.wait_ready()
        answer.write_text("500 flapping")
        with pytest.raises(NotReady, match=r"did not stay ready for 0.1s: GET / answered 500: 'flapping'"):
            await backend.wait_proved(0.1)


@trio_test
async def test_a_backend_that_is_stopped_like_a_debugger_does_is_unhealthy_until_it_goes_on():
    async with stage() as here:
        backend = here.backend(server_pool(health=replace(QUICK, timeout_s=0.1)))
        await backend.wait_ready()
        os.kill(backend.backend.pid, signal.SIGSTOP)
        await wait_state(backend, State.UNHEALTHY)
        assert here.named(BackendUnhealthy)[0].why == "GET /: no answer within 0.1s"
        os.kill(backend.backend.pid, signal.SIGCONT)
        await wait_state(backend, State.READY)
        assert backend.backend.restarts == 0


@trio_test
async def test_a_runner_prints_where_it_stands():
    async with stage() as here:
        backend = here.backend(server_pool())
        assert repr(backend) == "<ProcessRunner web.3@7, STARTING, restarts 0, not probed yet>"
        await backend.wait_ready()
        started = backend.backend
        assert repr(backend) == (
            f"<ProcessRunner web.3@7, READY, pid {started.pid}, {started.address}, restarts 0, GET / answered 200>"
        )
        await backend.stop()
        assert repr(backend).endswith(", told to stop>") or repr(backend).endswith(", ended>")
        assert ", STOPPING, " in repr(backend)
