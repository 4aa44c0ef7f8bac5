"""The tables of a pool: see schema.py."""

from typing import Annotated, ClassVar, Literal

from lbproxy.config.field_types import (
    Bytes,
    CloseCode,
    CloseReason,
    CookieName,
    Filled,
    HashKey,
    Natural,
    Percentage,
    Positive,
    ProbeHeaders,
    ProbeHost,
    ProbePath,
    Processes,
    Seconds,
    ServerName,
    Signal,
    SomeSeconds,
    Statuses,
    StickyKey,
    Surge,
    Target,
    Text,
    Truth,
    Upgrade,
    Words,
)
from lbproxy.config.kinds import Facts
from lbproxy.config.table import REPLACES, WHOLE, Table
from lbproxy.config.tls_tables import PemFile


class PassiveTable(Table):
    """Ejection of a backend that clients' work fails on: refused connects, broken answers, time limits."""

    errors: Annotated[Positive | None, Facts(10)] = None
    """How many errors within `within` are too many: the backend gets no new work for a while."""
    within_s: SomeSeconds | None = None
    """The time in which errors are counted."""
    eject_s: SomeSeconds | None = None
    """How long an ejected backend gets no new work."""
    at_most: Percentage | None = None
    """How much of the pool's ready backends may be ejected at a time; the last one never is."""


class HealthTable(Table):
    """How a backend is asked whether it is well."""

    path: Annotated[ProbePath | None, Facts(unset="no path: a TCP connect is the probe")] = None
    """The path of a GET that asks the backend whether it is well."""
    expect: Statuses | None = None
    """The status codes that pass a probe."""
    start_timeout_s: SomeSeconds | None = None
    """How long a backend may take from its start until it is ready."""
    interval_s: SomeSeconds | None = None
    """The time between two probes of a backend; while it starts and in a reload it is 250ms."""
    timeout_s: SomeSeconds | None = None
    """How long a probe waits for its answer."""
    rise: Positive | None = None
    """How many probes in a row an unhealthy backend must pass to get requests again."""
    fall: Positive | None = None
    """How many probes in a row a backend must fail to be unhealthy and get no more requests."""
    host: Annotated[ProbeHost | None, Facts(unset="the address of the backend")] = None
    """The Host field of the probe; some frameworks refuse a host that they do not know."""
    headers: Annotated[ProbeHeaders | None, Facts(unset="none")] = None
    """Further header fields of the probe."""
    grpc: Annotated[Truth | None, Facts(True)] = None
    """true: a probe calls grpc.health.v1.Health/Check, and passes when the answer is SERVING."""
    active: Annotated[Truth | None, Facts(False)] = None
    """false: no probes at all; a backend is ready when it listens."""
    passive: PassiveTable | None = None


class ReloadTable(Table):
    """How the backends of a pool are replaced."""

    max_surge: Surge | None = None
    """How many new backends are made at a time, on top of the pool's size."""
    min_ready_s: Seconds | None = None
    """How long a new backend must stay ready before an old one leaves."""
    on_failure: Annotated[Literal["rollback", "pause"] | None, Facts("pause")] = None
    """Whether a reload whose new backend does not come up goes back, or stops where it is and waits for you."""
    keep: Annotated[Natural | None, Facts(5)] = None
    """How many generations `lbproxy rollback` can bring back, besides the one that serves."""
    before: Annotated[Words | None, Facts("python manage.py migrate --check", "none")] = None
    """A command that runs before a reload makes anything, in the new generation's directory and environment."""
    after: Annotated[Words | None, Facts("curl -fsS https://example.com/deployed", "none")] = None
    """A command that runs when a reload is over; LBPROXY_RESULT has its result, the file LBPROXY_REPORT all of it."""
    warm_up: Annotated[list[ProbePath] | None, Facts(["/", "/api/prices"], "none")] = None
    """Paths that are asked for from each new backend before it is proved; answers are waited for, not judged."""


class DrainTable(Table):
    """How long each kind of work may still take when its backend has to go."""

    request_s: Seconds | None = None
    """How long a request in hand may still take."""
    transfer_s: Annotated[Seconds | None, Facts("1h")] = None
    """How long an upload or a download may still take while its bytes keep moving."""
    stream_s: Seconds | None = None
    """When an endless answer is ended: Server-Sent Events behind a whole event, a gRPC stream behind a message."""
    websocket_s: Annotated[Seconds | None, Facts("20s")] = None
    """WebSockets are told Close at moments spread evenly over this time; "0s" is all at once."""
    tcp_s: Seconds | None = None
    """How long a connection of a tcp listener may still take."""
    goodbye_s: Seconds | None = None
    """How long lbproxy waits for the Close of a WebSocket's peer."""
    close_code: CloseCode | None = None
    """The code of the WebSocket Close: 1001 is "going away", 1012 "service restart"."""
    close_reason: CloseReason | None = None
    """The reason in the WebSocket Close."""


class BackoffTable(Table):
    """The pause before a backend that died is started again."""

    first_s: Annotated[Seconds | None, Facts("500ms")] = None
    """The first pause; it doubles with every crash. After a minute of health there is none."""
    max_s: Annotated[Seconds | None, Facts("1m")] = None
    """The longest pause."""


class GiveUpTable(Table):
    """When a backend that keeps dying is not started again."""

    crashes: Annotated[Positive | None, Facts(10)] = None
    """How many crashes within `within` are too many: the backend has failed, until the next reload."""
    within_s: Annotated[SomeSeconds | None, Facts("5m")] = None
    """The time in which crashes are counted."""


class RestartTable(Table):
    """How backends are stopped, and started again."""

    backoff: BackoffTable | None = None
    give_up: GiveUpTable | None = None
    stop_signal: Signal | None = None
    """The signal that tells a backend to end."""
    stop_timeout_s: Seconds | None = None
    """How long a backend may take to end before it gets KILL."""
    max_memory: Annotated[Bytes | None, Facts("512MiB", "no limit")] = None
    """The most memory of a backend and its processes (a page that n share counts 1/n); over it, it is replaced."""


class PoolTimeoutsTable(Table):
    """How long lbproxy waits for a backend."""

    connect_s: Annotated[SomeSeconds | None, Facts("500ms")] = None
    """How long a connect to a backend may take; then another one is tried."""
    response_s: Annotated[SomeSeconds | None, Facts("2m")] = None
    """How long a backend may take until the head of its answer; then 504."""
    idle_s: Annotated[SomeSeconds | None, Facts("2m")] = None
    """How long a backend may send nothing in the middle of an answer, or take nothing of a request."""
    keepalive_s: Annotated[Seconds | None, Facts("4s")] = None
    """How long an idle connection to a backend is kept: shorter than what the backend itself allows."""


class QueueTable(Table):
    """Requests that wait because no backend is ready or has room."""

    size: Natural | None = None
    """How many requests may wait, in each worker; more are answered 503."""
    timeout_s: Seconds | None = None
    """How long a request may wait; then 503 with Retry-After."""


class PoolLimitsTable(Table):
    """Limits of a pool."""

    connections: Natural | None = None
    """The most requests and connections that a backend has in hand at a time; 0 is no limit."""
    queue: QueueTable | None = None


class RetryTable(Table):
    """Requests that are sent again."""

    attempts: Annotated[Positive | None, Facts(3)] = None
    """How often a request is sent in all, where it is safe to send it again; 1 is never again."""


class TargetTlsTable(Table):
    """How the certificates of https targets are verified."""

    applies: ClassVar[str] = REPLACES

    ca: Annotated[PemFile | None, Facts("internal-ca.pem", "the authorities of the system")] = None
    """A file of certificate authorities in whose place the system's are not asked; read at every reload."""
    server_name: Annotated[ServerName | None, Facts(unset="the host of the target")] = None
    """The name that must stand in the certificate, and that the target is asked for (SNI)."""
    verify: Annotated[Truth | None, Facts(False, "true")] = None
    """false: any certificate is taken, and whoever is on the way can read and change everything."""


class StickyTable(Table):
    """A cookie that keeps a client on its slot, over reloads and restarts of lbproxy. `sticky = {}` is enough."""

    cookie: CookieName | None = None
    """The name of the cookie, whose value tells nothing and cannot be forged. __Host- and __Secure- make it Secure."""
    max_age_s: Annotated[Seconds | None, Facts("7d")] = None
    """How long the browser keeps the cookie; "0s" is until it ends."""
    same_site: Annotated[Literal["lax", "strict", "none"] | None, Facts("strict")] = None
    """The cookie's SameSite; "none" also makes it Secure, because browsers drop it otherwise."""
    key: Annotated[
        StickyKey | None, Facts(unset="one that lbproxy makes at its first start, in state_dir", applies=WHOLE)
    ] = None
    """The key that tokens are made with: give one where several machines must take each other's cookies."""
    cluster: Annotated[Truth | None, Facts(False, "false")] = None
    """Whether the cookie also names the machine of a cluster."""


class PoolTable(Table):
    """A set of interchangeable backends: processes that lbproxy starts, or fixed addresses."""

    command: Annotated[Words | None, Facts(unset="none: then the pool has targets", applies=REPLACES)] = None
    """The command of a backend. {port} {host} {socket} {fd} {slot} {generation} are filled in; there is no shell."""
    targets: Annotated[
        list[Target] | None,
        Facts(
            ["127.0.0.1:9000", "app.internal:8080", "https://10.0.0.7:443", "unix:/run/app.sock"],
            "none: then the pool has a command",
            "at every reload; an address that stays keeps its connections",
        ),
    ] = None
    """Addresses of backends that lbproxy does not start. A name is looked up every 10 s; all its addresses are used."""
    tls: TargetTlsTable | None = None
    directory: Annotated[Filled | None, Facts("current", "the directory of the file", REPLACES)] = None
    """The working directory of the backends; a symlink is resolved once for each generation."""
    env: Annotated[dict[str, Text] | None, Facts({"SETTINGS": "prod"}, "nothing", REPLACES)] = None
    """Variables that are added to the environment of the backends."""
    env_file: Annotated[Filled | None, Facts(".env", "none", REPLACES)] = None
    """A file of KEY=VALUE lines that are added to the environment of the backends; `env` goes before it."""
    user: Annotated[Filled | None, Facts("www-data", "the user that lbproxy runs as", REPLACES)] = None
    """The user that the backends run as: a name or a number, with a group or without ("1000:1000")."""
    size: Annotated[
        Processes | None,
        Facts(
            unset="1; as many as there are targets",
            applies="at every reload; with --config-only the difference is started or stopped",
        ),
    ] = None
    """How many backends the pool has; "auto" is one for each CPU that lbproxy may use."""
    bind: Annotated[Literal["tcp", "unix", "fd"] | None, Facts("unix", applies=REPLACES)] = None
    """How a backend is reached: a TCP port ({port}), a unix socket ({socket}), or an inherited socket ({fd})."""
    balance: Annotated[Literal["least_conn", "round_robin", "random_two", "hash"] | None, Facts("hash")] = None
    """Which backend gets a request: the least busy one, one after the other, the better of two, or by hash_key."""
    hash_key: Annotated[HashKey | None, Facts(unset='"client_ip" with balance = "hash"')] = None
    """What decides with balance = "hash": equal keys go to the same backend."""
    send_proxy: Annotated[Literal["off", "v1", "v2"] | None, Facts("v2")] = None
    """A PROXY header tells the backend who the client is; each request then has a connection of its own."""
    protocol: Annotated[Literal["http/1.1", "h2c", "h2"] | None, Facts("h2c", applies=REPLACES)] = None
    """What the backends speak: h2c is HTTP/2 without TLS, as gRPC servers speak it; h2 is for https targets."""
    sticky: StickyTable | None = None
    slow_start_s: Seconds | None = None
    """How long the share of a backend grows that has just become ready, also in a reload; "0s": all of it at once."""
    health: HealthTable | None = None
    reload: ReloadTable | None = None
    drain: DrainTable | None = None
    restart: RestartTable | None = None
    timeouts: PoolTimeoutsTable | None = None
    limits: PoolLimitsTable | None = None
    retry: RetryTable | None = None
    buffer_request: Annotated[Bytes | None, Facts("1MiB")] = None
    """A body up to this size is complete, or a second old, before a backend gets the request; "0": never waited for."""
    accept_bare_lf: Annotated[Truth | None, Facts(True)] = None
    """true: the lines of a backend's response heads may end in a bare LF, as those of some simple servers do."""
    upgrades: Annotated[list[Upgrade] | None, Facts(["websocket", "tcp"])] = None
    """Protocols that a client may ask for by Upgrade; those other than websocket are relayed as plain bytes."""
