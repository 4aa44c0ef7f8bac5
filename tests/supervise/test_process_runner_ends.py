import os
import re
import signal
import sys
from dataclasses import replace

import pytest
import trio
import trio.testing
from support.children import PYTHON, QUICK_RESTART, is_running, pool, server_pool, stage, wait_state
from support.trio_test import trio_test

from lbproxy.model import State
from lbproxy.policy.lifecycle import IllegalTransition
from lbproxy.settings import RestartSettings
from lbproxy.supervise.session import session_pids
from lbproxy.telemetry.events import (
    BackendExited,
    BackendReady,
    BackendStarting,
    BackendStopped,
)

DEAF = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf'); signal.pause()"


@trio_test
async def test_it_starts_becomes_ready_and_stops():
    async with stage() as here:
        backend = here.backend(server_pool())
        states = []
        backend.on_change = lambda member: states.append(member.backend.state)
        await backend.wait_ready()
        pid = backend.backend.pid
        assert is_running(pid)
        assert await backend.stop() == "TERM"
        assert not is_running(pid)
        assert states == [State.STARTING, State.READY, State.STOPPING]
        kinds = (BackendStarting, BackendReady, BackendStopped)
        assert [type(event) for event in here.events if isinstance(event, kinds)] == list(kinds)
        assert not here.named(BackendExited)
        assert await backend.stop() == "TERM"


@trio_test
async def test_one_that_ignores_term_is_killed_after_its_time():
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, DEAF, restart=replace(QUICK_RESTART, stop_timeout_s=0.2)))
        await backend.output.wait_newer(0)
        assert await backend.stop() == "KILL"
        assert here.named(BackendStopped)[0].why == "it did not end within 0.2s of TERM"


@trio_test
async def test_one_that_is_stopping_says_when_it_will_be_killed():
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, DEAF, restart=replace(QUICK_RESTART, stop_timeout_s=600.0)))
        await backend.output.wait_newer(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.stop)
            await wait_state(backend, State.STOPPING)
            await trio.testing.wait_all_tasks_blocked()
            assert re.fullmatch(r"told to end by TERM, KILL in (600|599)\.\ds", backend.why)
            backend.kill("the test is over")
        assert here.named(BackendStopped)[0].why == "the test is over"


@trio_test
async def test_kill_does_not_wait_for_the_stop_timeout():
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, DEAF, restart=replace(QUICK_RESTART, stop_timeout_s=600.0)))
        await backend.output.wait_newer(0)
        backend.kill()
        assert await backend.stop() == "KILL"


@trio_test
async def test_kill_ends_a_stop_that_waits():
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, DEAF, restart=replace(QUICK_RESTART, stop_timeout_s=600.0)))
        await backend.output.wait_newer(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.stop)
            await trio.testing.wait_all_tasks_blocked()
            backend.kill()


@trio_test
async def test_an_exit_that_was_asked_for_tells_its_code():
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('up'); signal.pause()"
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, code))
        await backend.output.wait_newer(0)
        assert await backend.stop() == "exit code 0"
        assert not here.named(BackendExited)


@trio_test
async def test_the_stop_signal_is_the_configured_one():
    code = "import signal, sys; signal.signal(2, lambda *_: sys.exit(9)); print('up'); signal.pause()"
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, code, restart=replace(QUICK_RESTART, stop_signal=2)))
        await backend.output.wait_newer(0)
        assert await backend.stop() == "exit code 9"


@trio_test
async def test_nothing_of_a_shell_with_a_background_app_is_left():
    async with stage() as here:
        command = ("sh", "-c", f'{sys.executable} -I -S -u -c "{DEAF}" & wait')
        backend = here.backend(pool(*command, restart=replace(QUICK_RESTART, stop_timeout_s=0.2)))
        await backend.output.wait_newer(0)
        pid = backend.backend.pid
        assert len(session_pids([pid])) == 2
        await backend.stop()
        assert session_pids([pid]) == []


@trio_test
async def test_an_app_behind_a_shell_gets_its_time_to_finish():
    async with stage() as here:
        slow = (
            "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.3), print('done'), sys.exit(0)));"
            "print('up'); signal.pause()"
        )
        backend = here.backend(pool("sh", "-c", f'{sys.executable} -I -S -u -c "{slow}" & wait'))
        await backend.output.wait_newer(0)
        await backend.stop()
        assert backend.output.last(1)[0].text == "done"


@trio_test
async def test_leftovers_of_a_crash_are_killed():
    async with stage() as here:
        backend = here.backend(pool("sh", "-c", "sleep 600 & echo up; wait"))
        await backend.output.wait_newer(0)
        pid = backend.backend.pid
        os.kill(pid, signal.SIGKILL)
        while not here.named(BackendExited):
            await backend.wait_change()
        assert session_pids([pid]) == []


@trio_test
async def test_cancelling_it_leaves_no_process():
    async with stage() as here:
        backend = here.backend(pool("sh", "-c", f'{sys.executable} -I -S -u -c "{DEAF}" & wait'))
        await backend.output.wait_newer(0)
        pid = backend.backend.pid
        here.nursery.cancel_scope.cancel()
    assert session_pids([pid]) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)  # not even a zombie


@trio_test
async def test_it_can_be_stopped_before_it_runs():
    async with stage() as here:
        backend = here.backend(server_pool())
        assert await backend.stop() == "not running"
        await trio.testing.wait_all_tasks_blocked()
        assert not here.named(BackendStarting)


@trio_test
async def test_it_can_be_stopped_in_its_back_off():
    async with stage() as here:
        backend = here.backend(pool("false", restart=RestartSettings(backoff_first_s=600.0, backoff_max_s=600.0)))
        await wait_state(backend, State.BACKOFF)
        await backend.stop()
        assert backend.backend.state is State.STOPPING


@trio_test
async def test_one_that_dies_while_draining_is_not_started_again():
    async with stage() as here:
        backend = here.backend(server_pool())
        await backend.wait_ready()
        backend.drain()
        os.kill(backend.backend.pid, signal.SIGKILL)
        await backend._ended.wait()
        assert backend.backend.state is State.STOPPING
        assert here.named(BackendExited)[0].restart_in_s is None
        with pytest.raises(IllegalTransition):
            backend.take_back()
        assert await backend.stop() == "not running"
