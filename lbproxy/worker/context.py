"""What all exchanges of a worker share, whichever lane they take. A value with no behaviour beyond telling control."""

from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate

import trio

from lbproxy.link.messages import ToControl, Unreachable
from lbproxy.model import BackendView
from lbproxy.policy.retry import NOT_CONNECTED
from lbproxy.telemetry.access import AccessLog
from lbproxy.telemetry.events import Event
from lbproxy.wire.lines import Lines
from lbproxy.worker.backends.connections import BackendConnection, BackendConnections, connect
from lbproxy.worker.backends.http2_connections import SharedConnections
from lbproxy.worker.backends.secure import SecureConnections, Untrusted
from lbproxy.worker.error_reports import ErrorReports
from lbproxy.worker.failures import FailureReports
from lbproxy.worker.io.reactor import Reactor
from lbproxy.worker.leases.router import Router
from lbproxy.worker.tally import Tally


@dataclass(slots=True, eq=False)
class Context:
    reactor: Reactor
    router: Router
    backends: BackendConnections
    post: Callable[[ToControl], None]
    emit: Callable[[Event], None]
    access: AccessLog = field(default_factory=lambda: AccessLog(None, "off"))
    lines: Lines = field(default_factory=Lines)  # of the task lane
    secure: SecureConnections = field(default_factory=SecureConnections)
    stopping: trio.Event = field(default_factory=trio.Event)
    shared: SharedConnections = field(init=False)
    failures: FailureReports = field(init=False)
    errors: ErrorReports = field(init=False)
    date: Callable[[], bytes] = field(init=False)  # the Date field of an answer, behind a CRLF

    def __post_init__(self) -> None:
        self.shared = SharedConnections(self.reactor, self.connect)
        self.failures = FailureReports(self.emit, self.post)
        self.errors = ErrorReports(self.router.pool, self.post)
        self.date = DateLine(lambda: self.reactor.wall(self.reactor.now)).now

    @property
    def tally(self) -> Tally:
        return self.router.tally

    @property
    def proxy_name(self) -> str:
        return self.router.table.name

    def close_backends(self) -> None:
        self.backends.close()
        self.shared.close()

    def forget_backend(self, backend: BackendView) -> None:
        """The backend has left the table, and no work is on it."""
        self.backends.forget(backend)
        self.shared.forget(backend)

    async def connect(self, backend: BackendView, connect_s: float) -> BackendConnection:
        """A fresh connection. Raises ConnectFailed or Untrusted."""
        if not backend.address.secure:
            return await connect(backend, connect_s)
        try:
            return await self.secure.connect(backend, connect_s)
        except Untrusted as exc:  # it counts as a failed probe; the backend stays: other handshakes may succeed
            self.tally.note("backend_error", backend.id.pool, exc.token)
            self.errors.note(backend, str(exc))
            self.post(Unreachable(str(backend.id), str(exc)))
            raise

    def unreachable(self, backend: BackendView, why: str, *, timed_out: bool = False) -> None:
        """No connection came about: the backend is passed over here. The client's work is not lost: it claims anew.

        A refusal counts as a failed probe, so control is told. Time that has passed proves nothing: the backend may
        live, with a full accept queue; its probes go on as ever.
        """
        self.router.skip(backend.id)
        self.tally.note("backend_error", backend.id.pool, "connection_timeout" if timed_out else "connection_refused")
        self.tally.note("retry", backend.id.pool, NOT_CONNECTED)
        self.errors.note(backend, why)
        if not timed_out:
            self.post(Unreachable(str(backend.id), why))


class DateLine:
    """Makes the Date field (RFC 9110, 6.6.1) once a second. `wall`: seconds of the epoch."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._second = -1
        self._line = b""

    def now(self) -> bytes:
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self._line = b"\r\nDate: " + formatdate(second, usegmt=True).encode()
        return self._line
