import socket
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing
from support.children import QUICK, generation, stage, wait_state
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.model import BackendSpec, State
from lbproxy.settings import PoolSettings
from lbproxy.supervise.address_runner import AddressRunner
from lbproxy.supervise.runner import NotReady
from lbproxy.telemetry.events import BackendReady, BackendUnhealthy

TCP = replace(QUICK, path=None)


@contextmanager
def port():
    """A bound port; `listen` on it to make it answer."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield server


def target(here, server, health=TCP):
    addresses = (Address("127.0.0.1", 1), Address("127.0.0.1", server.getsockname()[1]))
    settings = PoolSettings("legacy", targets=addresses, size=2, directory="/", health=health)
    made = AddressRunner(BackendSpec(2, generation(settings, 1)), here.resources)
    here.nursery.start_soon(made.run)
    return made


@trio_test
async def test_a_target_is_probed_and_ready_and_never_stopped():
    async with stage() as here:
        with port() as server:
            server.listen()
            made = target(here, server)
            await made.wait_proved(0.1)
            assert made.backend.address == Address("127.0.0.1", server.getsockname()[1])
            assert made.backend.pid is None
            assert len(here.named(BackendReady)) == 1
            assert await made.stop() == "not running"
            assert made.backend.state is State.STOPPING
            socket.create_connection(server.getsockname()).close()


@trio_test
async def test_a_target_that_does_not_answer_is_unhealthy_and_comes_later():
    async with stage() as here:
        with port() as server:
            made = target(here, server)
            await wait_state(made, State.UNHEALTHY)
            assert here.named(BackendUnhealthy)[0].why == "connection refused"
            server.listen()
            await made.wait_ready()


@trio_test
async def test_waiting_tasks_get_not_ready_when_it_is_not_ready_in_time():
    async with stage() as here:
        with port() as server:
            made = target(here, server, replace(TCP, start_timeout_s=0.2))
            with pytest.raises(NotReady, match=r"not ready within 0.2s: connection refused"):
                await made.wait_ready()


@trio_test
async def test_a_target_that_was_stopped_before_it_ran_is_not_probed():
    async with stage() as here:
        with port() as server:
            made = target(here, server)
            assert await made.stop() == "not running"
            await trio.testing.wait_all_tasks_blocked()
            assert made.backend.address is None


@trio_test
async def test_drain_and_refusals_work_as_for_a_process():
    async with stage() as here:
        with port() as server:
            server.listen()
            made = target(here, server, replace(TCP, interval_s=600.0))
            await made.wait_ready()
            made.drain()
            made.take_back()
            for _ in range(3):
                made.refused()
            assert made.backend.state is State.UNHEALTHY
            await wait_state(made, State.READY)
