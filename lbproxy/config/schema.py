"""The shape of the file: which tables there are, which keys they have, and what each key does (CONTRACT.md 2).

A field is named as the one of settings.py that it fills; its key in the file is that name without the `_s` of seconds.
Every default is None and means "not given": the defaults themselves stand in settings.py. The text below a field is
its line in `lbproxy explain` and in `lbproxy schema`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import PlainValidator

from lbproxy.address import Address
from lbproxy.config import kinds, secret_types, units, values
from lbproxy.config.events_tables import EventsTable
from lbproxy.config.kinds import Facts
from lbproxy.config.table import NEXT_START, REPLACES, WHOLE, Read, Table
from lbproxy.settings import Secret

Text = Annotated[str, Read(values.text), kinds.TEXT]
Filled = Annotated[str, Read(values.filled), kinds.PATH]
Label = Annotated[str, Read(values.label), kinds.LABEL]
Seconds = Annotated[float, Read(units.duration), kinds.DURATION]
SomeSeconds = Annotated[float, Read(units.positive_duration), kinds.DURATION]
Bytes = Annotated[int, Read(units.size), kinds.SIZE]
Natural = Annotated[int, Read(values.whole(0)), kinds.NATURAL]
Positive = Annotated[int, Read(values.whole(1)), kinds.POSITIVE]
Processes = Annotated[int | Literal["auto"], Read(values.count_or_auto), kinds.PROCESSES]
Words = Annotated[list[str], Read(values.words), kinds.COMMAND]
Ports = Annotated[tuple[int, int], Read(values.port_range), kinds.PORTS]
Listen = Annotated[Address, Read(values.address), kinds.LISTEN]
Bound = Annotated[Address, Read(values.bound_address), kinds.BOUND]
Target = Annotated[Address, Read(values.target), kinds.TARGET]
Network = Annotated[str, Read(values.network), kinds.NETWORK]
RouteHost = Annotated[str, Read(values.route_host), kinds.HOST]
RoutePath = Annotated[str, Read(values.route_path), kinds.ROUTE_PATH]
ProbePath = Annotated[str, Read(values.probe_path), kinds.PROBE_PATH]
ProbeHost = Annotated[str, Read(values.probe_host), kinds.PROBE_HOST]
ProbeHeaders = Annotated[tuple[tuple[str, str], ...], Read(values.probe_headers), kinds.HEADERS]
Statuses = Annotated[tuple[tuple[int, int], ...], Read(values.statuses), kinds.STATUSES]
Truth = Annotated[bool, Read(values.truth), kinds.TRUTH]
Surge = Annotated[tuple[int, bool], Read(values.surge), kinds.SURGE]
CloseCode = Annotated[int, Read(values.close_code), kinds.CLOSE_CODE]
CloseReason = Annotated[str, Read(values.close_reason), kinds.CLOSE_REASON]
Signal = Annotated[int, Read(values.stop_signal), kinds.SIGNAL]
HashKey = Annotated[str, Read(values.hash_key), kinds.HASH_KEY]

AdminPath = Annotated[str, Read(values.admin_path), kinds.ADMIN_PATH]
Token = Annotated[Secret, PlainValidator(secret_types.token), kinds.TOKEN]


class ProxyTable(Table):
    """lbproxy as a whole."""

    applies: ClassVar[str] = WHOLE

    name: Annotated[Label | None, Facts(unset="the name of the host")] = None
    """What this lbproxy is called in Proxy-Status, in `lbproxy status` and in metrics."""
    workers: Annotated[
        Processes | None,
        Facts(unset='"auto"', applies=f"{WHOLE}; fewer than before, and more than there are CPUs, {NEXT_START}"),
    ] = None
    """How many worker processes serve the clients; "auto" is one for each CPU that lbproxy may use."""
    control: Annotated[
        Filled | None,
        Facts("run/lb.sock", "in $XDG_RUNTIME_DIR/lbproxy or /run/lbproxy, named after the file", NEXT_START),
    ] = None
    """The unix socket where lbproxy listens for commands such as `lbproxy reload`."""
    pid_file: Annotated[Filled | None, Facts("run/lb.pid", "no such file", NEXT_START)] = None
    """A file that holds lbproxy's pid while it runs."""
    state_dir: Annotated[
        Filled | None,
        Facts(
            "state", "in $STATE_DIRECTORY, /var/lib/lbproxy or ~/.local/state/lbproxy, named after the file", NEXT_START
        ),
    ] = None
    """Where lbproxy keeps what outlives it: the history, and the generations for `lbproxy rollback`."""
    control_group: Annotated[Filled | None, Facts("deploy", "root and its own user only", NEXT_START)] = None
    """A group whose members may use the control socket."""
    ports: Annotated[Ports | None, Facts(unset='"20000-29999"')] = None
    """The ports that {port} in a command is taken from."""
    shutdown_timeout_s: Seconds | None = None
    """How long work in hand may take when lbproxy stops, before it is cut."""


class ListenerLimitsTable(Table):
    """Limits of a listener; 0 is no limit."""

    applies: ClassVar[str] = WHOLE

    header_bytes: Bytes | None = None
    """The longest head of a request; a longer one is answered 431."""
    headers: Natural | None = None
    """The most header fields in a request; more are answered 431."""
    body_bytes: Annotated[Bytes | None, Facts("10MiB")] = None
    """The longest body of a request; a longer one is answered 413."""
    connections: Natural | None = None
    """The most connections at a time; more wait in the kernel's queue."""


class ListenerTimeoutsTable(Table):
    """How long lbproxy waits for a client."""

    applies: ClassVar[str] = WHOLE

    header_s: SomeSeconds | None = None
    """How long the head of a request may take, from its first byte on; then 408."""
    idle_s: SomeSeconds | None = None
    """How long a connection without a request is kept open."""
    body_s: SomeSeconds | None = None
    """How long a client may neither send the rest of a body nor take the rest of an answer."""


class ListenerTable(Table):
    """An address where clients connect."""

    applies: ClassVar[str] = WHOLE

    address: Listen
    """Where lbproxy listens."""
    name: Annotated[Label | None, Facts("public", "the address")] = None
    """What the listener is called in `lbproxy status` and in metrics."""
    mode: Annotated[Literal["http", "tcp"] | None, Facts("tcp")] = None
    """Whether requests are read and routed ("http"), or bytes passed both ways without being read ("tcp")."""
    pool: Annotated[Text | None, Facts("web", "the pool, where there is only one; else 404")] = None
    """The pool that gets what no route claims."""
    proxy_protocol: Annotated[Literal["off", "accept"] | None, Facts("accept")] = None
    """Whether a connection begins with a PROXY header, v1 or v2; only trusted_proxies are believed."""
    trusted_proxies: Annotated[list[Network] | None, Facts(["10.0.0.0/8", "::1"], "none")] = None
    """Peers whose X-Forwarded-For, X-Request-ID and PROXY header are believed."""
    limits: ListenerLimitsTable | None = None
    timeouts: ListenerTimeoutsTable | None = None
    half_close: Annotated[Literal["abort", "serve"] | None, Facts("serve")] = None
    """A client that ends its side behind a complete request: "abort" its request, or "serve" it."""


class RouteTable(Table):
    """A rule that sends requests to a pool; the first that matches wins: host first, then the longest path."""

    applies: ClassVar[str] = WHOLE

    pool: Annotated[Text, Facts("api")]
    """The pool that gets the requests."""
    host: Annotated[RouteHost | None, Facts(unset="any host")] = None
    """The host name that a request must have."""
    path: RoutePath | None = None
    """What the path of a request must begin with."""


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
    active: Annotated[Truth | None, Facts(False)] = None
    """false: no probes at all; a backend is ready when it listens."""


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
    """When an endless answer, such as Server-Sent Events, is ended, behind a whole event."""
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


class PoolTable(Table):
    """A set of interchangeable backends: processes that lbproxy starts, or fixed addresses."""

    command: Annotated[Words | None, Facts(unset="none: then the pool has targets", applies=REPLACES)] = None
    """The command of a backend. {port} {host} {socket} {fd} {slot} {generation} are filled in; there is no shell."""
    targets: Annotated[
        list[Target] | None,
        Facts(
            ["127.0.0.1:9000", "unix:/run/app.sock"],
            "none: then the pool has a command",
            "at every reload; an address that stays keeps its connections",
        ),
    ] = None
    """Fixed addresses of backends that lbproxy does not start."""
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
    health: HealthTable | None = None
    reload: ReloadTable | None = None
    drain: DrainTable | None = None
    restart: RestartTable | None = None
    timeouts: PoolTimeoutsTable | None = None
    limits: PoolLimitsTable | None = None
    retry: RetryTable | None = None
    buffer_request: Annotated[Bytes | None, Facts("1MiB")] = None
    """A body up to this size is complete, or a second old, before a backend gets the request; "0": never waited for."""


class LogTable(Table):
    """What lbproxy writes down."""

    applies: ClassVar[str] = WHOLE

    level: Annotated[Literal["debug", "info", "warning", "error"] | None, Facts("warning")] = None
    """The least important events that are logged."""
    format: Annotated[Literal["auto", "text", "json"] | None, Facts("json", applies=NEXT_START)] = None
    """How events are written; "auto" is text on a terminal, else json."""
    access: Annotated[Literal["combined", "json", "off"] | None, Facts("json")] = None
    """How each request is written to the access log."""
    access_path: Annotated[Filled | None, Facts("access.log")] = None
    """The file of the access log; "-" is standard output."""
    audit_path: Annotated[Filled | None, Facts("audit.log", "no such file")] = None
    """A file that gets a JSON line for each change that somebody asked for: time, uid, pid, command, what, result."""
    backend_lines: Natural | None = None
    """How many lines of output per second and backend go to lbproxy's log; `lbproxy logs` has all. 0 is none."""


class AdminTable(Table):
    """Health, metrics, status, events and a page for people, over HTTP."""

    applies: ClassVar[str] = WHOLE

    address: Bound
    """Where it listens. Without a token only loopback or a unix socket, and nothing can be changed."""
    open: Annotated[list[AdminPath] | None, Facts(["/livez", "/readyz", "/metrics"])] = None
    """The paths that need no token."""
    hosts: Annotated[list[RouteHost] | None, Facts(["lb.internal"], "none")] = None
    """The names that requests may have in Host, besides IP addresses, localhost and proxy.name."""
    token: Annotated[Token | None, Facts("env:ADMIN_TOKEN", "none: read-only")] = None
    """What clients must send as "Authorization: Bearer …" or as the password of Basic. With it changes are possible."""


class Document(Table):
    """The configuration of lbproxy."""

    proxy: ProxyTable | None = None
    listener: list[ListenerTable] | None = None
    route: list[RouteTable] | None = None
    pool: dict[str, PoolTable] | None = None
    log: LogTable | None = None
    admin: AdminTable | None = None
    events: EventsTable | None = None
