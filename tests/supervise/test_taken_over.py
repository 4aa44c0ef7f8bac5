"""A runner that goes on with the process of an earlier program: it watches it, and starts the next one by itself.

The earlier program is the test: it has spawned the process, and tells of it as hand_on does.
"""

import os
import signal
from contextlib import asynccontextmanager

import trio
from support.children import generation, server_pool
from support.ports import free_port
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.model import BackendSpec, State
from lbproxy.supervise.handed_on import (
    HandedBackend,
    HandedEndpoint,
    HandedHealth,
    HandedLine,
    HandedProcess,
    HandedRun,
    handed_time,
)
from lbproxy.supervise.process_runner import ProcessRunner
from lbproxy.supervise.resources import Resources
from lbproxy.telemetry.events import BackendExited, BackendOutput, BackendStarting


class Found:
    def __init__(self, state: State) -> None:
        self.port = free_port()
        self.settings = server_pool()
        read_end, write_end = os.pipe()
        environ = {"HOST": "127.0.0.1", "PORT": str(self.port)}
        words = self.settings.command
        output = [(os.POSIX_SPAWN_DUP2, write_end, number) for number in (1, 2)]
        self.pid = os.posix_spawn(words[0], words, environ, file_actions=output, setsid=True)
        os.close(write_end)
        address, now = Address("127.0.0.1", self.port), handed_time(trio.current_time())
        ready = now if state is not State.STARTING else None
        health = HandedHealth(True, 0, ready, now, ready, ready, "not probed yet", False)
        endpoint = HandedEndpoint(address, self.port, None)
        self.handed = HandedBackend(
            *(state, now, address, self.pid, 2, 1, health, None, (HandedLine(7, 1e9, b"old".hex()),), 7),
            HandedProcess(self.pid, "mark.1", read_end, b"cut ".hex(), endpoint),
            HandedRun(now, 0, self.pid, None, None, None),
        )


@asynccontextmanager
async def taken_over(state: State):
    events, found = [], Found(state)
    resources = Resources.make(events.append, (23000, 23100), 100)
    runner = ProcessRunner(BackendSpec(1, generation(found.settings)), resources)
    runner.take_over(found.handed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        yield runner, found, events
        await runner.stop()


@trio_test
async def test_a_ready_backend_is_not_started_again():
    async with taken_over(State.READY) as (runner, found, events):
        while not [event for event in events if isinstance(event, BackendOutput)]:
            await runner.wait_change()
        assert (runner.backend.state, runner.backend.pid) == (State.READY, found.pid)
        assert (runner.backend.restarts, runner.recycled) == (2, 1)
        assert [line.text for line in runner.output.last(9)] == ["old", "cut listening"]
        assert runner.is_settled
        again = runner.hand_on()
        assert (again.process.pid, again.process.endpoint) == (found.pid, found.handed.process.endpoint)
        assert not [event for event in events if isinstance(event, BackendStarting)]


@trio_test
async def test_one_that_was_starting_becomes_ready():
    async with taken_over(State.STARTING) as (runner, found, _):
        await runner.wait_ready()
        assert runner.backend.pid == found.pid


@trio_test
async def test_one_that_dies_is_reaped_and_started_again():
    async with taken_over(State.READY) as (runner, found, events):
        os.kill(found.pid, signal.SIGKILL)
        while runner.backend.state is not State.READY or runner.backend.pid == found.pid:
            await runner.wait_change()
        (exited,) = [event for event in events if isinstance(event, BackendExited)]
        assert (exited.pid, exited.how) == (found.pid, "signal SIGKILL")
        assert not os.path.exists(f"/proc/{found.pid}")
