"""The configuration as frozen values: CONTRACT.md 2 with durations in seconds and sizes in bytes.

Made by `config/`, read everywhere. Knows neither TOML nor pydantic, so that workers and client commands stay light.
A field is named as its key in the file, plus its unit.
"""

from dataclasses import dataclass, field

from lbproxy.address import Address

EARLY_BODY_BYTES = 64 * 1024
LONGEST_PAGE_BYTES = 64 * 1024  # of `pause --maintenance`
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"


@dataclass(frozen=True, slots=True)
class ProxySettings:
    name: str
    workers: int
    control: str  # absolute path of the control socket
    pid_file: str | None
    ports: tuple[int, int]  # first and last, both included
    shutdown_timeout_s: float = 30.0
    state_dir: str | None = None  # absolute; None: nothing is kept
    control_group: str | None = None  # may use the control socket, too
    user: str | None = None  # of the workers; None: of control


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    header_bytes: int = 16 * 1024
    headers: int = 100
    body_bytes: int = 0  # 0 = no limit
    connections: int = 20_000
    connections_per_client: int = 0  # over all workers; 0 = no limit


@dataclass(frozen=True, slots=True)
class ListenerTimeouts:
    header_s: float = 10.0
    idle_s: float = 75.0
    body_s: float = 60.0


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The files of one certificate chain and its private key, PEM, absolute paths."""

    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class AcmeSettings:
    """A certificate that lbproxy orders, and renews, at an authority that speaks ACME (RFC 8555)."""

    domains: tuple[str, ...]
    email: str | None = None
    server: str = LETS_ENCRYPT  # the URL of its directory
    ca: str | None = None  # absolute path of a PEM file: whom the server's own certificate must be of


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Where the certificates of a listener come from, and what is asked of its clients."""

    certs: tuple[CertificateFiles, ...] = ()  # with `acme`: the one file that holds what was ordered
    directory: str | None = None  # absolute; holds certificates instead of `certs`
    min_version: str = "1.2"  # 1.2 | 1.3
    client_ca: str | None = None  # absolute path of a PEM file
    client_auth: str | None = None  # require | request; None without client_ca
    acme: AcmeSettings | None = None


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    name: str  # as given, else the address
    address: Address
    mode: str = "http"  # http | tcp
    pool: str | None = None  # what no route claims; None = 404
    trusted_proxies: tuple[str, ...] = ()  # networks in CIDR form; "unix": the peers of a unix listener
    limits: ListenerLimits = field(default_factory=ListenerLimits)
    timeouts: ListenerTimeouts = field(default_factory=ListenerTimeouts)
    proxy_protocol: str = "off"  # off | accept: a PROXY header from trusted_proxies, before anything else
    half_close: str = "abort"  # abort | serve: a client that ends its side after a complete request
    forwarded: bool = False  # RFC 7239 is written, and read from trusted_proxies
    socket_mode: int | None = None  # of the file of a unix socket; None: 0666 minus the umask
    socket_group: str | None = None  # which owns that file
    tls: TlsSettings | None = None
    protocols: tuple[str, ...] = ("http/1.1",)  # h2 | http/1.1 | h2c, the preferred one first; with TLS by ALPN
    redirect: str | None = None  # https: requests are answered with their address there
    acme_challenges: str | None = None  # absolute; a directory with a file for each token
    hsts_s: float | None = None  # for which a browser shall use nothing but https


@dataclass(frozen=True, slots=True)
class RouteSettings:
    pool: str
    host: str | None = None  # lower case, without port; None = any
    path: str = "/"  # prefix


@dataclass(frozen=True, slots=True)
class PassiveSettings:
    """When a backend that clients' work fails on is ejected, and for how long."""

    errors: int = 5
    within_s: float = 10.0
    eject_s: float = 10.0
    at_most_percent: int = 50  # of the pool's ready backends, and never the last one


@dataclass(frozen=True, slots=True)
class HealthSettings:
    path: str | None = None  # None = a TCP connect is the probe
    expect: tuple[tuple[int, int], ...] = ((200, 399),)  # status ranges, both ends included
    start_timeout_s: float = 60.0
    interval_s: float = 5.0
    timeout_s: float = 2.0
    rise: int = 2
    fall: int = 3
    host: str | None = None  # of the probe; None = the backend's address
    headers: tuple[tuple[str, str], ...] = ()  # further fields of the probe
    grpc: bool = False  # a probe calls grpc.health.v1.Health/Check
    active: bool = True  # False = no probes: ready when it listens
    passive: PassiveSettings | None = None


@dataclass(frozen=True, slots=True)
class ReloadSettings:
    max_surge: int = 1
    max_surge_is_percent: bool = False
    min_ready_s: float = 1.0
    on_failure: str = "rollback"  # rollback | pause
    keep: int = 3  # generations kept for a rollback, besides the one that serves
    before: tuple[str, ...] | None = None  # a command; not exit code 0 = nothing happens
    after: tuple[str, ...] | None = None  # a command
    warm_up: tuple[str, ...] = ()  # paths


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """Grace per kind of lease, in seconds from the start of the drain."""

    request_s: float = 30.0
    transfer_s: float = 900.0
    stream_s: float = 30.0
    websocket_s: float = 5.0
    tcp_s: float = 30.0
    goodbye_s: float = 5.0
    close_code: int = 1001
    close_reason: str = "going away"


@dataclass(frozen=True, slots=True)
class RestartSettings:
    backoff_first_s: float = 1.0
    backoff_max_s: float = 30.0
    give_up_crashes: int = 5
    give_up_within_s: float = 60.0
    stop_signal: int = 15
    stop_timeout_s: float = 10.0
    max_memory_bytes: int = 0  # proportional set size of the whole session; 0 = no limit


@dataclass(frozen=True, slots=True)
class PoolTimeouts:
    connect_s: float = 2.0
    response_s: float = 60.0
    idle_s: float = 60.0
    keepalive_s: float = 1.0


@dataclass(frozen=True, slots=True)
class PoolLimits:
    connections: int = 0  # per backend over all workers, 0 = no limit
    queue_size: int = 1000
    queue_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class TargetTls:
    """How the certificates of https targets are verified."""

    ca: str | None = None  # absolute path of a PEM file; None: the system's authorities
    server_name: str | None = None  # None: the host of the target
    verify: bool = True
    authorities: str | None = field(default=None, repr=False)  # the text of `ca`


@dataclass(frozen=True, slots=True)
class StickySettings:
    """The cookie that keeps a client on its slot. Its key is no part of it: generations are written to a file."""

    cookie: str = "lbproxy"
    max_age_s: float = 0.0  # 0 = until the browser ends
    same_site: str = "lax"  # lax | strict | none


@dataclass(frozen=True, slots=True)
class PoolSettings:
    name: str
    command: tuple[str, ...] | None = None  # None: fixed targets
    targets: tuple[Address, ...] = ()
    directory: str = "."  # absolute, symlinks NOT resolved: that is done once per generation
    env: tuple[tuple[str, str], ...] = ()
    env_file: str | None = None  # absolute
    user: str | None = None
    size: int = 1  # len(targets) for a targets pool
    bind: str = "tcp"  # tcp | unix | fd
    balance: str = "least_conn"
    send_proxy: str = "off"  # off | v1 | v2: a PROXY header towards the backend
    protocol: str = "http/1.1"  # http/1.1 | h2c | h2: what the backends speak
    hash_key: str | None = None  # client_ip | header:NAME | cookie:NAME | path
    health: HealthSettings = field(default_factory=HealthSettings)
    reload: ReloadSettings = field(default_factory=ReloadSettings)
    drain: DrainSettings = field(default_factory=DrainSettings)
    restart: RestartSettings = field(default_factory=RestartSettings)
    timeouts: PoolTimeouts = field(default_factory=PoolTimeouts)
    limits: PoolLimits = field(default_factory=PoolLimits)
    retry_attempts: int = 2
    buffer_request_bytes: int = EARLY_BODY_BYTES  # a request body up to this is complete before a backend is claimed
    tls: TargetTls | None = None  # None: no target speaks TLS
    accept_bare_lf: bool = False  # lines of response heads may end in a bare LF
    upgrades: tuple[str, ...] = ("websocket",)  # protocols of Upgrade that pass, in lower case
    sticky: StickySettings | None = None
    slow_start_s: float = 0.0  # how long the share of a new backend grows


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = "info"  # debug | info | warning | error
    format: str = "auto"  # auto | text | json
    access: str = "combined"  # combined | json | off
    access_path: str = "-"  # "-" = standard output, else an absolute path
    audit_path: str | None = None  # absolute
    backend_lines: int = 100  # per second and backend, to lbproxy's own log; 0 = none


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A token, a key or a password. Its repr does not show it, so that no log and no report can."""

    value: str
    variable: str | None = None  # the variable that it came from

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class AdminSettings:
    address: Address
    open: tuple[str, ...] = ("/livez", "/readyz")  # paths that need no token
    hosts: tuple[str, ...] = ()  # let through besides IP literals, localhost and proxy.name; lower case
    token: Secret | None = None
    tls: TlsSettings | None = None


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    url: Secret
    events: tuple[str, ...] = ("*",)  # patterns; backends' output only where it is named
    secret: Secret | None = None  # signs the body


@dataclass(frozen=True, slots=True)
class RedisSettings:
    url: Secret
    channel: str = "lbproxy"
    events: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class EventsSettings:
    webhook: WebhookSettings | None = None
    redis: RedisSettings | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    path: str | None  # as the user named it; None for the file-less form
    proxy: ProxySettings
    listeners: tuple[ListenerSettings, ...]
    routes: tuple[RouteSettings, ...]
    pools: tuple[PoolSettings, ...]  # in file order
    log: LogSettings = field(default_factory=LogSettings)
    admin: AdminSettings | None = None
    events: EventsSettings = field(default_factory=EventsSettings)
    sticky_keys: tuple[tuple[str, Secret], ...] = ()  # by pool, where the file gives one

    def pool(self, name: str) -> PoolSettings:
        return next(pool for pool in self.pools if pool.name == name)
