"""A worker that does not acknowledge a table, or does not answer, is hung: it is killed, and then replaced.

Knows one worker and the epoch of the newest table.
"""

from collections.abc import Callable

import trio

from lbproxy.control.changed import Changed
from lbproxy.control.worker_process import WorkerProcess
from lbproxy.telemetry.events import Event, WorkerHung

HUNG_AFTER_S = 5.0
START_S = 20.0  # the same for a worker that has just been started: it imports its modules first


async def watch(
    worker: WorkerProcess, newest_epoch: Callable[[], int], changed: Changed, emit: Callable[[Event], None]
) -> None:
    """Kill the worker when it is hung, and return."""

    def is_behind() -> bool:
        return worker.state != "stopping" and (worker.applied < newest_epoch() or worker.stats.ask < worker.asked)

    async def catches_up(epoch: int, asked: int, within_s: float) -> bool:
        with trio.move_on_after(within_s):
            await changed.wait(
                lambda: worker.state == "stopping" or (worker.applied >= epoch and worker.stats.ask >= asked)
            )
            return True
        return False

    while True:
        await changed.wait(is_behind)
        epoch, asked = newest_epoch(), worker.asked
        patience_s = HUNG_AFTER_S if worker.applied else START_S
        # In two halves: if control itself was suspended, the answer is there to be read after the first half.
        if await catches_up(epoch, asked, patience_s / 2) or await catches_up(epoch, asked, patience_s / 2):
            continue
        emit(WorkerHung(worker.id, worker.process.pid, epoch))
        worker.process.kill()
        return
