from typing import Any, cast

from lbproxy.control.worker_process import WorkerProcess
from lbproxy.link.messages import Stats


def test_a_new_worker_has_applied_nothing_and_counted_nothing() -> None:
    first, second = (WorkerProcess(1, 1, cast("Any", None), cast("Any", None)) for _ in range(2))
    assert (first.state, first.born, first.applied, first.stats) == ("starting", 0, 0, Stats(0, 0, 0, {}))
    first.drained["web.1@1"] = 3
    assert second.drained == {}
