"""Events as values. `name` is the event's name in JSON. log.py is the only place that turns an event into text.

Fields are plain JSON values. An event that belongs to a reload carries the reload's id, so that its client sees it.
"""

from dataclasses import dataclass, field

from lbproxy.telemetry.certificate_events import CertificateExpiring as CertificateExpiring
from lbproxy.telemetry.certificate_events import CertificateLoaded as CertificateLoaded
from lbproxy.telemetry.certificate_events import CertificateRejected as CertificateRejected
from lbproxy.telemetry.event import Event as Event
from lbproxy.telemetry.upgrade_events import UpgradeDone as UpgradeDone
from lbproxy.telemetry.upgrade_events import UpgradeProved as UpgradeProved
from lbproxy.telemetry.upgrade_events import UpgradeStarted as UpgradeStarted


@dataclass(frozen=True, slots=True)
class ServeStarted(Event):
    name = "serve.started"
    pid: int
    workers: int
    listeners: tuple[str, ...]
    control: str


@dataclass(frozen=True, slots=True)
class ServeStopping(Event):
    name = "serve.stopping"
    why: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class ServeStopped(Event):
    name = "serve.stopped"
    why: str


@dataclass(frozen=True, slots=True)
class ConfigRejected(Event):
    name = "config.rejected"
    level = "error"
    path: str
    problems: str  # the whole report, many lines


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something an operator should know that has no name of its own."""

    name = "notice"
    level = "warning"
    text: str
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendStarting(Event):
    name = "backend.starting"
    pool: str
    backend: str  # "web.3@7", here and below
    pid: int
    address: str
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendReady(Event):
    name = "backend.ready"
    pool: str
    backend: str
    after_s: float
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendProved(Event):
    name = "backend.proved"
    pool: str
    backend: str
    after_s: float
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendNotReady(Event):
    name = "backend.not_ready"
    level = "error"
    pool: str
    backend: str
    why: str
    output: tuple[str, ...]
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendUnhealthy(Event):
    name = "backend.unhealthy"
    level = "warning"
    pool: str
    backend: str
    why: str
    back_in_s: float | None = None  # of an ejected one; None: when its probes pass again


@dataclass(frozen=True, slots=True)
class BackendHealthy(Event):
    name = "backend.healthy"
    pool: str
    backend: str
    why: str | None = None  # None: its probes pass


@dataclass(frozen=True, slots=True)
class BackendExited(Event):
    """Died without being asked to."""

    name = "backend.exited"
    level = "warning"
    pool: str
    backend: str
    pid: int | None  # None: it never came to life
    how: str  # "exit code 3", "signal SIGKILL", "command not found: 'uvicron' (PATH is ...)"
    restart_in_s: float | None
    output: tuple[str, ...]
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendRecycled(Event):
    """Ended by itself with exit code 0 after it had been ready: as `--max-requests` makes it."""

    name = "backend.recycled"
    pool: str
    backend: str
    pid: int
    after_s: float
    restart_in_s: float
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendFailed(Event):
    name = "backend.failed"
    level = "error"
    pool: str
    backend: str
    crashes: int
    within_s: float


@dataclass(frozen=True, slots=True)
class BackendDraining(Event):
    name = "backend.draining"
    pool: str
    backend: str
    leases: int
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendDrained(Event):
    name = "backend.drained"
    pool: str
    backend: str
    after_s: float
    cut: int
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendTakenBack(Event):
    name = "backend.taken_back"
    pool: str
    backend: str
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class BackendStopped(Event):
    name = "backend.stopped"
    pool: str
    backend: str
    how: str  # "TERM", "KILL", "exit code 0"
    reload: str | None = None
    why: str | None = None  # of a KILL


@dataclass(frozen=True, slots=True)
class BackendOutput(Event):
    name = "backend.output"
    backend: str
    line: str
    # When it was read, in seconds of the epoch: the event's time, not a fact of its own.
    at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    name = "worker.started"
    worker: int
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerExited(Event):
    name = "worker.exited"
    level = "error"
    worker: int
    pid: int
    how: str


@dataclass(frozen=True, slots=True)
class WorkerHung(Event):
    name = "worker.hung"
    level = "error"
    worker: int
    pid: int
    epoch: int


@dataclass(frozen=True, slots=True)
class AcceptPaused(Event):
    name = "accept.paused"
    level = "warning"
    listener: str
    why: str


@dataclass(frozen=True, slots=True)
class AcceptResumed(Event):
    name = "accept.resumed"
    listener: str


@dataclass(frozen=True, slots=True)
class ExchangeFailed(Event):
    """A request that lbproxy answered with 5xx, or whose answer broke off."""

    name = "exchange.failed"
    level = "warning"
    request_id: str
    pool: str | None
    backend: str | None  # None: no backend had part in it
    status: int  # of the answer, as far as one went out
    error: str  # RFC 9209 error type
    reason: str
    left_out: int = 0  # failures before this one that were not told


@dataclass(frozen=True, slots=True)
class LogDropped(Event):
    name = "log.dropped"
    level = "warning"
    lines: int
    log: str = "event"  # event | access


@dataclass(frozen=True, slots=True)
class ReloadStarted(Event):
    name = "reload.started"
    reload: str
    trigger: str  # "command", "USR2", "HUP", "resume", "max_memory"
    pools: tuple[str, ...]
    verb: str = "reload"  # reload | rollback | scale | restart | recycle | drain
    sizes: tuple[int, ...] = ()  # how many new backends each pool gets; empty: not known yet
    asked_by: dict[str, int | str] | None = None  # uid, pid, how
    backend: str | None = None  # of a restart or a recycle
    why: str | None = None  # of a recycle


@dataclass(frozen=True, slots=True)
class ReloadRollingBack(Event):
    name = "reload.rolling_back"
    level = "error"
    reload: str
    pool: str
    why: str


@dataclass(frozen=True, slots=True)
class ReloadPaused(Event):
    """It stands half-way until somebody says resume, abort or rollback (`reload.on_failure = "pause"`)."""

    name = "reload.paused"
    level = "error"
    reload: str
    pool: str
    why: str


@dataclass(frozen=True, slots=True)
class ReloadDone(Event):
    """One pool's verdict (CONTRACT.md 1)."""

    name = "reload.done"
    reload: str
    pool: str
    result: str  # ok | rolled_back | failed | aborted | paused
    generation: int  # that the reload made, or tried to make
    from_generation: int  # that served before; after a rollback it serves again
    duration_s: float
    requests: int
    failed: int
    cut: int
    websockets_closed: int
    why: str | None = None
    output: tuple[str, ...] = ()
    verb: str = "reload"
    same_as: int | None = None  # the kept generation that a rollback has brought back
    size: int | None = None  # of a scale
    differs: tuple[str, ...] = ()  # keys that are not as in the file any more
    backend: str | None = None  # of a restart, a recycle or a drain
    held: int | None = None  # requests that waited for a backend meanwhile
    websocket_closes: dict[str, int] | None = None  # by code
    peak_memory_bytes: int | None = None  # resident, of the pool's backends together
    # Of each generation that answered something meanwhile: generation, requests, errors (5xx), p99_s, and
    # backend_memory_bytes (of its largest backend).
    compared: tuple[dict[str, int | float | None], ...] = ()
    longest_hold_s: float | None = None  # of those that waited
    asked_by: dict[str, int | str] | None = None  # uid, pid, how


@dataclass(frozen=True, slots=True)
class PoolPaused(Event):
    name = "pool.paused"
    level = "warning"
    pool: str
    max_wait_s: float | None  # of a request; None: as the pool's queue says
    maintenance: bool


@dataclass(frozen=True, slots=True)
class PoolUnpaused(Event):
    name = "pool.unpaused"
    pool: str


@dataclass(frozen=True, slots=True)
class PoolResolved(Event):
    """The addresses behind the names of a pool's targets have changed."""

    name = "pool.resolved"
    pool: str
    came: tuple[str, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReloadFinished(Event):
    """The whole plan's verdict: the last line of POST /v1/reload."""

    name = "reload.finished"
    reload: str
    exit_code: int
    text: str
