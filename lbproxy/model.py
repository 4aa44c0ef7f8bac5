"""The values that control and workers share: a backend, its address, the routing table.

Frozen, slotted, comparable. No I/O, no clock.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from lbproxy.address import Address
from lbproxy.settings import (
    EARLY_BODY_BYTES,
    DrainSettings,
    ListenerSettings,
    PoolLimits,
    PoolSettings,
    PoolTimeouts,
    RouteSettings,
    StickySettings,
    TargetTls,
)


@dataclass(frozen=True, slots=True, order=True)
class BackendId:
    """`web.3@7`: slot 3 of pool web, in generation 7."""

    pool: str
    slot: int
    generation: int

    @classmethod
    def parse(cls, text: str) -> "BackendId":
        rest, _, generation = text.rpartition("@")
        pool, _, slot = rest.rpartition(".")
        return cls(pool, int(slot), int(generation))

    @property
    def name(self) -> str:
        """`web.3`: what operators and metrics call it."""
        return f"{self.pool}.{self.slot}"

    def __str__(self) -> str:
        return f"{self.pool}.{self.slot}@{self.generation}"


class State(StrEnum):
    """The life of a backend (CONTRACT.md 3). Changes only through policy/lifecycle.py."""

    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


class LeaseKind(StrEnum):
    """The kind of a lease; each kind drains in its own way (DESIGN.md 5). The order is that of the grid's counters."""

    REQUEST = "request"
    TRANSFER = "transfer"
    STREAM = "stream"
    WEBSOCKET = "websocket"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Generation:
    """The settings, directory and environment of a generation, kept so that a rollback brings back exactly these."""

    number: int
    settings: PoolSettings
    directory: str  # symlinks resolved when the generation was made
    env: tuple[tuple[str, str], ...]  # of the file and the configuration together, read when it was made


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """The slot and the generation of one backend: enough to start it, and to start it again."""

    slot: int
    generation: Generation

    @property
    def id(self) -> BackendId:
        return BackendId(self.generation.settings.name, self.slot, self.generation.number)


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend as control knows it. Changes by being replaced, through policy/lifecycle.py."""

    id: BackendId
    state: State
    since: float  # monotonic clock of control, when `state` began
    address: Address | None = None  # None until it is spawned
    pid: int | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class BackendView:
    """A backend as a worker sees it."""

    id: BackendId
    address: Address
    cell: int  # its column in the shared grid
    token: str = ""  # the value of a sticky cookie that names its slot; empty: the pool is not sticky
    send_proxy: str = ""  # v1 | v2: its connections begin with a PROXY header, and are not shared by clients
    tls: TargetTls | None = None  # where the address is secure: how its certificate is verified
    is_http2: bool = False


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as a worker sees it. A backend that is draining, unproved or dead is absent."""

    name: str
    cell: int  # the pool's own column in the grid: what no backend is to blame for
    backends: tuple[BackendView, ...]
    newest: int  # the newest generation among `backends`; long-lived leases go there while a reload runs
    balance: str
    hash_key: str | None
    timeouts: PoolTimeouts
    limits: PoolLimits
    drain: DrainSettings
    retry_attempts: int
    buffer_request_bytes: int = EARLY_BODY_BYTES
    is_hopeless: bool = False  # every backend has failed for good: none comes without a reload
    resting: tuple[BackendView, ...] = ()  # they have leases and get none: ejected; all of a paused pool (TCP goes on)
    upgrades: tuple[str, ...] = ("websocket",)  # protocols that a request may ask the backend for; lower case
    accept_bare_lf: bool = False  # lines of response heads may end in a bare LF
    maintenance: str | None = None  # its requests are answered with 503 and this page ("": the usual one)
    sticky: StickySettings | None = None
    coming: tuple[str, ...] = ()  # tokens of slots in their first start: their clients wait a moment for them
    reports_errors: bool = False  # control counts the errors of its backends
    slow_start_s: float = 0.0
    is_keyed: bool = field(init=False, compare=False)  # a claim needs a key, made of the request
    is_choosy: bool = field(init=False, compare=False)  # a choice takes more than `balance`

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_keyed", self.balance == "hash" or self.sticky is not None)
        object.__setattr__(self, "is_choosy", bool(self.limits.connections) or self.sticky is not None)

    @property
    def every(self) -> tuple[BackendView, ...]:
        """All whose leases go on."""
        return (*self.backends, *self.resting)


@dataclass(frozen=True, slots=True)
class ListenerView:
    key: int  # grows; names one set of listening sockets for as long as it is open
    cell: int  # its column in the grid: connections
    settings: ListenerSettings


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Everything a worker needs to route. Replaced whole, and only by one with a higher epoch."""

    epoch: int
    name: str  # of the proxy: in Proxy-Status
    listeners: tuple[ListenerView, ...]
    routes: tuple[RouteSettings, ...]
    pools: tuple[PoolView, ...]
    access: str = "off"  # combined | json | off
    access_path: str = "-"
    challenges: tuple[tuple[str, str], ...] = ()  # of ACME orders: token, and what the authority wants to read there
