"""The tables of a listener and of a route: see schema.py."""

from typing import Annotated, ClassVar, Literal

from lbproxy.config.field_types import (
    Bytes,
    FileMode,
    Filled,
    Label,
    Listen,
    Natural,
    RouteHost,
    RoutePath,
    Seconds,
    SomeSeconds,
    Text,
    TrustedProxy,
    Truth,
)
from lbproxy.config.kinds import Facts
from lbproxy.config.table import WHOLE, Table
from lbproxy.config.tls_tables import TlsTable


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
    connections_per_client: Annotated[Natural | None, Facts(100)] = None
    """The most connections of one address (of IPv6 the first 64 bits); more are closed. Trusted peers have no limit."""


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
    trusted_proxies: Annotated[list[TrustedProxy] | None, Facts(["10.0.0.0/8", "::1", "unix"], "none")] = None
    """Peers whose X-Forwarded-For, X-Request-ID and PROXY header are believed; "unix" is whoever connects to a path."""
    forwarded: Annotated[Truth | None, Facts(True)] = None
    """Whether Forwarded (RFC 7239) is written beside X-Forwarded-For, and read from trusted_proxies."""
    socket_mode: Annotated[FileMode | None, Facts("0660", "0666 minus the umask")] = None
    """The permissions of a unix socket: who may connect."""
    socket_group: Annotated[Filled | None, Facts("www-data", "the group that lbproxy runs as")] = None
    """The group that a unix socket belongs to: a name or a number."""
    limits: ListenerLimitsTable | None = None
    timeouts: ListenerTimeoutsTable | None = None
    half_close: Annotated[Literal["abort", "serve"] | None, Facts("serve")] = None
    """A client that ends its side behind a complete request: "abort" its request, or "serve" it."""
    tls: TlsTable | None = None
    protocols: Annotated[
        list[Literal["h2", "http/1.1", "h2c"]] | None,
        Facts(["h2", "http/1.1"], 'with tls ["h2", "http/1.1"], else ["http/1.1"]'),
    ] = None
    """The protocols that clients may choose from, the preferred one first; "h2c" is HTTP/2 without tls."""
    redirect: Annotated[Literal["https"] | None, Facts("https", "no redirect")] = None
    """Where requests are sent (308): to the same address by https. ACME challenges are still answered here."""
    acme_challenges: Annotated[Filled | None, Facts("/var/www/acme", "none")] = None
    """The directory that /.well-known/acme-challenge/TOKEN is served from (certbot's --webroot-path)."""
    hsts_s: Annotated[Seconds | None, Facts("180d", "browsers are told nothing")] = None
    """How long browsers shall use nothing but https: Strict-Transport-Security, where the backend sets none."""


class RouteTable(Table):
    """A rule that sends requests to a pool; the first that matches wins: host first, then the longest path."""

    applies: ClassVar[str] = WHOLE

    pool: Annotated[Text, Facts("api")]
    """The pool that gets the requests."""
    host: Annotated[RouteHost | None, Facts(unset="any host")] = None
    """The host name that a request must have."""
    path: RoutePath | None = None
    """What the path of a request must begin with."""
