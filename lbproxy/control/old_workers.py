"""The workers of two programs side by side: handed on, taken over, and told to leave when the new ones serve.

Knows the records of the workers and their links. upgrader.py knows when.
"""

from lbproxy.control.handed_on import HandedWorkers
from lbproxy.control.worker_process import WorkerProcess
from lbproxy.control.workers import Workers
from lbproxy.link.messages import GiveAway
from lbproxy.supervise.reap import Children


def can_be_handed_on(workers: Workers) -> bool:
    """Whether no worker is in the middle of a start or of its end, and no message is on its way to one."""
    live = workers.live.values()
    return (
        _new_serve(workers)
        and not workers.is_spawning
        and not any(worker.channel.waiting or worker.silent.is_set() for worker in live)
        and not workers.moves_under_way()
    )


def hand_on(workers: Workers) -> HandedWorkers:
    return HandedWorkers(workers.ask, tuple(worker.hand_on() for worker in workers.live.values()))


def take_over(workers: Workers, handed: HandedWorkers, children: Children) -> None:
    """Before the workers run. The old ones serve on until `tell_to_leave`."""
    workers.ask = handed.ask
    for one in handed.workers:
        workers.adopt(WorkerProcess.take_over(one, children, handed.ask))


async def wait_new_serving(workers: Workers) -> None:
    """Returns when each slot has a serving worker of this program; also in a stop."""
    await workers.changed.wait(lambda: workers.is_stopping or _new_serve(workers))


def tell_to_leave(workers: Workers, grace_s: float, tunnels_s: float) -> None:
    """See messages.GiveAway."""
    for worker in workers.live.values():
        if worker.is_old and worker.state not in ("leaving", "stopping"):
            worker.state = "leaving"
            worker.channel.post(GiveAway(grace_s, tunnels_s))
    workers.changed.notify()


async def wait_old_gone(workers: Workers) -> None:
    await workers.changed.wait(lambda: not any(worker.is_old for worker in workers.live.values()))


def _new_serve(workers: Workers) -> bool:
    serving = sum(worker.state == "serving" and not worker.is_old for worker in workers.live.values())
    return serving >= workers.wanted
