"""What all exchanges of a worker share, whichever lane they take. A value with no behaviour beyond telling control."""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from lbproxy.link.messages import ToControl, Unreachable
from lbproxy.model import BackendView
from lbproxy.telemetry.access import AccessLog
from lbproxy.telemetry.events import Event
from lbproxy.wire.lines import Lines
from lbproxy.worker.backends.connections import BackendConnections
from lbproxy.worker.ending import FailureReports
from lbproxy.worker.io.reactor import Reactor
from lbproxy.worker.leases.router import Router


@dataclass(slots=True, eq=False)
class Context:
    reactor: Reactor
    router: Router
    backends: BackendConnections
    post: Callable[[ToControl], None]
    emit: Callable[[Event], None]
    access: AccessLog = field(default_factory=lambda: AccessLog(None, "off"))
    lines: Lines = field(default_factory=Lines)  # of the task lane
    stopping: trio.Event = field(default_factory=trio.Event)
    failures: FailureReports = field(init=False)

    def __post_init__(self) -> None:
        self.failures = FailureReports(self.emit)

    @property
    def proxy_name(self) -> str:
        return self.router.table.name

    def unreachable(self, backend: BackendView, why: str) -> None:
        """A connection was refused: passed over here, and control is told; it counts as a failed probe."""
        self.router.skip(backend.id)
        self.post(Unreachable(str(backend.id), why))
