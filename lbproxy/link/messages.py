"""The messages between control and a worker. Values only: codec.py turns them into bytes, channel.py carries them.

Times are seconds left, never clock readings: each process has its own clock.

An old worker outlives an upgrade of lbproxy, so the next version of control must understand it. LINK_VERSION grows when
a message changes. A new field stands behind the others, has a default, and says `added_in(VERSION)`: it is left out of
what goes to an older worker, and what an older worker leaves out has its default. A new kind of message is not sent to
an older worker (see Channel.version).
"""

from dataclasses import dataclass, field

from lbproxy.link.moved import MovedConnection
from lbproxy.model import RoutingTable
from lbproxy.telemetry.events import AcceptPaused, AcceptResumed, ExchangeFailed, LogDropped, Notice, TlsFailed


@dataclass(frozen=True, slots=True)
class Welcome:
    """Control's first message. One descriptor comes with it: the shared grid."""

    worker: int  # 1..N; its row in the grid is worker - 1
    grid_rows: int
    grid_cells: int
    log_format: str  # text | json: of control's log


@dataclass(frozen=True, slots=True)
class Publish:
    """A whole table. With it come the listening sockets that were not in the one before, one for each of `sockets`, in
    this order."""

    table: RoutingTable
    sockets: tuple[int, ...]  # ListenerView.key of each descriptor


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """The DNS names of one certificate, lower case, as the certificate has them ("*.example.com")."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Certificates:
    """The certificates of one TLS listener: sent before the first table that has the listener, and again at each
    rotation. With it come sealed memfds: for each of `pairs` the chain and the key (PEM), then the client CAs if
    `has_client_ca`. The worker closes them once they are loaded."""

    serial: int  # grows with every message of its kind
    listener: int  # ListenerView.key
    pairs: tuple[CertificateNames, ...]  # the first one is for clients that no name fits
    has_client_ca: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Accept no new work, finish the leases within `grace_s`, then exit."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class GiveAway:
    """Accept no new clients, because a new worker does; give away the connections that can be moved (Given), finish the
    others, and exit when none is left.

    Exchanges end within the graces of their drain, at most `grace_s`. Tunnels that cannot be moved have `tunnels_s`
    before their drain begins. Tables still come.
    """

    grace_s: float
    tunnels_s: float


@dataclass(frozen=True, slots=True)
class Take:
    """Go on with a connection of an old worker. With it come its descriptors."""

    number: int
    moved: MovedConnection


@dataclass(frozen=True, slots=True)
class Released:
    """To an old worker: the connection that it gave away as `number` is not its own any more, and its lease ends.
    With `is_taken` False no worker took it, and the old one goes on."""

    number: int
    is_taken: bool


@dataclass(frozen=True, slots=True)
class LogFile:
    """The file of the access log comes with this, open: a worker may have no right to open it. It is for the next table
    with this path; of the path that is in use it is the file to go on with (USR1)."""

    path: str


@dataclass(frozen=True, slots=True)
class CopyAccess:
    """Copy the access log to the socket that comes with this: the recent lines, and with `follow` the further ones."""

    follow: bool


@dataclass(frozen=True, slots=True)
class AskStats:
    ask: int


@dataclass(frozen=True, slots=True)
class AskConnections:
    """At most `limit` open connections behind the number `after`, and of that one the streams behind `after_stream`, in
    their order: all, or those that hold one of `backends`, or a backend of `pool`."""

    ask: int
    after: int
    limit: int
    pool: str | None = None
    backends: tuple[str, ...] = ()  # "web.3@7"; none: any
    after_stream: int = 0


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """`stream`: of an HTTP/2 connection, only this stream; 0: all of it."""

    ask: int
    number: int
    stream: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    epoch: int


@dataclass(frozen=True, slots=True)
class CertificatesLoaded:
    """The answer to Certificates. New handshakes use them; with a `why` they could not be loaded, and the ones before
    stay in use."""

    serial: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """An old worker gives a connection away. With it come its descriptors. Nobody reads them until control says
    Released: the old worker keeps its own and its lease."""

    number: int  # grows
    moved: MovedConnection


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to Take: the worker has the connection and a lease on its backend; with a `why` it has neither."""

    number: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class GaveAway:
    """An old worker has given away everything that can be moved now. `left`: the connections that it finishes. Some of
    them may be moved later, when their exchange is over."""

    left: int


@dataclass(frozen=True, slots=True)
class Drained:
    """No lease on `backend` is left in this worker; `epoch` is that of the table it was absent from."""

    backend: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The backend refused a connection: the worker skips it until the next table."""

    backend: str
    why: str


@dataclass(frozen=True, slots=True)
class BackendErrors:
    """Errors of a backend in a pool with `passive` since the last such message. `last`: the newest one, for people."""

    backend: str
    number: int
    last: str


@dataclass(frozen=True, slots=True)
class Exchanges:
    """HTTP exchanges of one pool with the same method and status. `pool` is empty where no pool took the request."""

    pool: str
    method: str  # OTHER: not one of RFC 9110 or PATCH
    status: int  # 499: the client left; 0: the connection was closed without an answer
    buckets: tuple[int, ...]  # their number by duration, see telemetry.histogram.DURATION_BOUNDS_S
    took_s: float  # all together
    request_bytes: int  # of the bodies, and of WebSockets that have ended
    response_bytes: int
    generation: int = 0  # of the backend; 0: no backend had part in it


@dataclass(frozen=True, slots=True)
class QueueWaits:
    pool: str
    buckets: tuple[int, ...]  # as in Exchanges
    waited_s: float
    longest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Incidents:
    """One of:

    retry            (pool, reason)    reason: see policy/retry.py
    backend_error    (pool, error)     error: RFC 9209 error type
    websocket_close  (pool, code, by)  by: client, backend, proxy or nobody
    drain_cut        (pool, kind)      kind: of the lease
    http2_reset      (listener, why)   why: the error code in lower case; ours_ and the code: lbproxy has reset it
    tls_handshake    (listener, result, version)  result: ok, resumed, failed, gone; version: TLSv1.3, if it got so far
    """

    name: str
    labels: tuple[str, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Increase:
    """What a worker has counted since its last Stats. No number is negative."""

    exchanges: tuple[Exchanges, ...] = ()
    waits: tuple[QueueWaits, ...] = ()
    incidents: tuple[Incidents, ...] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    ask: int
    connections: int
    served: int  # exchanges of the express lane
    handed_over: dict[str, int]  # why the express lane gave an exchange away
    longest_turn_s: float = 0.0  # of the last minute: how long the reactor kept the worker's tasks waiting,
    longest_batch_s: float = 0.0  # and with one batch of events everybody else
    phases: dict[str, int] = field(default_factory=dict)  # how many connections of the express lane are in which
    queued: dict[str, int] = field(default_factory=dict)  # requests in the queue, by pool
    http2_streams: dict[str, int] = field(default_factory=dict)  # open ones, by listener
    increase: Increase = Increase()


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """One open client connection, or one stream of it. `number` is of its socket: no other one of this host ever has
    it."""

    number: int
    client: str  # address and port, "unix"
    listener: str
    kind: str  # idle, http2 (its streams have rows of their own), or the kind of its lease
    backend: str | None  # that it holds: "web.3@7"
    age_s: float  # of its lease, else of what it waits for
    moved_bytes: int | None  # in the last 10 s, both ways; None: not measured (a unix socket)
    silent_s: float | None  # since the last byte
    rule: str | None  # the drain setting that its grace comes from
    grace_s: float | None
    left_s: float | None  # of its grace; None: it does not drain
    stream: int = 0  # of an HTTP/2 connection; 0: the connection itself


@dataclass(frozen=True, slots=True)
class Connections:
    """A part of the answer to AskConnections, in the order of the numbers."""

    ask: int
    rows: tuple[ConnectionRow, ...]
    is_last: bool  # part of this answer
    has_more: bool = False  # connections behind the limit


@dataclass(frozen=True, slots=True)
class Closed:
    """The answer to CloseConnection. `how`: closed | goodbye | cut; empty: there is no such connection."""

    ask: int
    how: str


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt to have a request answered, and how it failed."""

    backend: str  # "web.3@7"
    why: str
    after_s: float  # since the request came


@dataclass(frozen=True, slots=True)
class FailedExchange:
    """An exchange that lbproxy answered with 5xx, or whose answer broke off."""

    time: float  # when its head was complete: seconds of the epoch
    duration_s: float
    client: str
    request: str  # method and target
    request_id: str
    pool: str | None
    backend: str | None  # the last that had part in it: "web.3@7"
    status: int  # of the answer, as far as one went out
    error: str  # RFC 9209 error type
    reason: str
    tries: tuple[Try, ...] = ()  # the earlier attempts, too; not each one, if the client saw the last one's end


@dataclass(frozen=True, slots=True)
class Failures:
    items: tuple[FailedExchange, ...]
    left_out: int  # that were not kept, because there were too many


WorkerEvent = (
    ExchangeFailed | TlsFailed | Notice | AcceptPaused | AcceptResumed | LogDropped
)  # passed on to control's log
ToWorker = (
    Welcome
    | Publish
    | Certificates
    | Stop
    | GiveAway
    | Take
    | Released
    | LogFile
    | CopyAccess
    | AskStats
    | AskConnections
    | CloseConnection
)
ToControl = (
    Applied
    | BackendErrors
    | CertificatesLoaded
    | Given
    | Taken
    | GaveAway
    | Drained
    | Unreachable
    | Stats
    | Connections
    | Closed
    | Failures
    | WorkerEvent
)
