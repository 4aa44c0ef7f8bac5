from typing import Any, cast

from lbproxy.control.worker_process import WorkerProcess
from lbproxy.link.messages import Stats


def made(number: int) -> WorkerProcess:
    return WorkerProcess(number, number, cast("Any", None), cast("Any", None))


def test_a_new_worker_has_applied_nothing_and_counted_nothing() -> None:
    first, second = made(1), made(2)
    assert (first.state, first.born, first.applied, first.stats) == ("starting", 0, 0, Stats(0, 0, 0, {}))
    first.drained["web.1@1"] = 3
    assert second.drained == {}


def test_a_backend_that_left_before_a_worker_began_is_drained_there_unless_the_worker_took_a_lease_of_another() -> None:
    worker = made(1)
    worker.born = 7
    assert worker.is_drained("web.1@1", 7)
    worker.take("web.1@1")
    assert not worker.is_drained("web.1@1", 7)
    worker.drained["web.1@1"] = 8
    assert worker.is_drained("web.1@1", 7)
    worker.take("web.1@1")
    assert not worker.is_drained("web.1@1", 7)
    assert worker.is_drained("web.2@1", 7)
