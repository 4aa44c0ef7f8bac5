"""The shape of the file: which tables there are, which keys they have, and what each key does (CONTRACT.md 2).

A field is named as the one of settings.py that it fills; its key in the file is that name without the `_s` of seconds.
Every default is None and means "not given": the defaults themselves stand in settings.py. The text below a field is
its line in `lbproxy explain` and in `lbproxy schema`.
"""

from typing import Annotated, ClassVar, Literal

from lbproxy.config.events_tables import EventsTable
from lbproxy.config.field_types import (
    AdminPath,
    Bound,
    Filled,
    Label,
    Natural,
    Ports,
    Processes,
    RouteHost,
    Seconds,
    Token,
)
from lbproxy.config.kinds import Facts
from lbproxy.config.listener_tables import ListenerTable, RouteTable
from lbproxy.config.pool_tables import PoolTable
from lbproxy.config.table import NEXT_START, WHOLE, Table
from lbproxy.config.tls_tables import TlsTable


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
    user: Annotated[Filled | None, Facts("www-data", "the user that lbproxy runs as", NEXT_START)] = None
    """The user that the workers run as: a name or a number, with a group or without ("1000:1000")."""
    ports: Annotated[Ports | None, Facts(unset='"20000-29999"')] = None
    """The ports that {port} in a command is taken from."""
    shutdown_timeout_s: Seconds | None = None
    """How long work in hand may take when lbproxy stops, before it is cut."""


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
    tls: TlsTable | None = None
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
