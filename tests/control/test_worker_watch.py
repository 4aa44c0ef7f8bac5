"""When a worker counts as hung, in virtual time. test_workers.py has real ones."""

from types import SimpleNamespace

import trio
from support.trio_test import trio_test

from lbproxy.control.changed import Changed
from lbproxy.control.worker_watch import HUNG_AFTER_S, START_S, watch
from lbproxy.telemetry.events import WorkerHung


class Suspect(SimpleNamespace):
    def __init__(self, applied):
        super().__init__(id=1, state="serving", applied=applied, asked=0, stats=SimpleNamespace(ask=0), killed_at=None)
        self.process = SimpleNamespace(pid=7, kill=self._kill)

    def _kill(self):
        self.killed_at = trio.current_time()


async def watched(worker, epoch):
    said, changed = [], Changed()
    began = trio.current_time()
    with trio.move_on_after(25):
        await watch(worker, lambda: epoch, changed, said.append)
    return said, worker.killed_at and worker.killed_at - began


@trio_test(clock="autojump")
async def test_a_worker_that_does_not_acknowledge_is_killed():
    said, after_s = await watched(Suspect(applied=1), 2)
    assert said == [WorkerHung(1, 7, 2)]
    assert after_s == HUNG_AFTER_S


@trio_test(clock="autojump")
async def test_a_worker_that_starts_has_more_time():
    _, after_s = await watched(Suspect(applied=0), 1)
    assert after_s == START_S


@trio_test(clock="autojump")
async def test_a_worker_that_stops_is_left_alone():
    stopping = Suspect(applied=1)
    stopping.state = "stopping"
    assert await watched(stopping, 2) == ([], None)


@trio_test(clock="autojump")
async def test_a_worker_that_is_up_to_date_is_left_alone():
    assert await watched(Suspect(applied=2), 2) == ([], None)
