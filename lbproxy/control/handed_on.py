"""What one control hands on to the next over an exec (`lbproxy upgrade`), as values of a JSON document.

The document has names, not positions: a field that an older version does not write gets its default, and one that it
does not know is passed over. VERSION grows when that is not enough; then the older document is refused.
A field whose name ends in `_fd` or `_fds` is a descriptor; see also supervise/handed_on.py.
"""

from dataclasses import dataclass, field
from typing import Any

from lbproxy.address import Address
from lbproxy.model import Generation, RoutingTable
from lbproxy.settings import PoolSettings, Settings
from lbproxy.supervise.handed_on import HandedBackend, HandedDirectory, HandedResources

VERSION = 1


@dataclass(frozen=True, slots=True)
class HandedGrid:
    grid_fd: int
    rows: int
    cells: int
    counters: tuple[str, ...]  # of a cell, in their order
    free: tuple[int, ...]  # cells


@dataclass(frozen=True, slots=True)
class HandedListener:
    """The sockets of one address."""

    address: Address
    key: int
    cell: int
    sockets_fds: tuple[int, ...]
    is_shared: bool
    why_shared: str
    inode: int
    listening: int
    hidden: bool
    joins: bool
    permissions: tuple[int, int] | None = None  # of a path, where the settings say nothing: mode and group


@dataclass(frozen=True, slots=True)
class HandedSockets:
    next_key: int
    bound: tuple[HandedListener, ...]


@dataclass(frozen=True, slots=True)
class HandedWorker:
    id: int
    slot: int
    pid: int
    link_fd: int
    state: str
    link_version: int  # of the messages that it speaks
    born: int
    applied: int
    holds: tuple[int, ...]
    drained: dict[str, int]
    received: str = ""  # hexadecimal: the beginning of a message
    received_fds: tuple[int, ...] = ()  # that came with it
    connections: int = 0
    served: int = 0
    handed_over: dict[str, int] = field(default_factory=dict)
    took: tuple[str, ...] = ()  # see WorkerProcess


@dataclass(frozen=True, slots=True)
class HandedWorkers:
    ask: int
    workers: tuple[HandedWorker, ...]


@dataclass(frozen=True, slots=True)
class HandedMember:
    """One backend. `generation`: its place in the list of its pool's generations."""

    slot: int
    generation: int
    cell: int
    published: bool
    held: bool
    in_table: bool
    left_epoch: int
    started_at: float | None
    runner: HandedBackend
    drain: Any = None  # the command that drains it still: id and asked_by


@dataclass(frozen=True, slots=True)
class HandedPool:
    name: str
    settings: PoolSettings
    generation: int  # its place in `generations`
    generations: tuple[Generation, ...]
    cell: int
    members: tuple[HandedMember, ...]
    differs: tuple[str, ...]
    is_paused: bool
    pause_max_wait_s: float | None
    pause_page: str | None
    totals: dict[str, int]  # of the cells that are given back, by counter
    requests_by_slot: dict[str, int]  # the same, of requests


@dataclass(frozen=True, slots=True)
class HandedCell:
    """A cell whose backend is gone, and which a worker may still count in."""

    pool: str
    backend: str
    cell: int
    left_epoch: int


@dataclass(frozen=True, slots=True)
class HandedFleet:
    epoch: int
    numbers: dict[str, int]
    pools: tuple[HandedPool, ...]
    leaving: tuple[HandedCell, ...]
    names: tuple[tuple[str, int, tuple[str, ...]], ...] = ()  # of targets: host, port, the addresses found


@dataclass(frozen=True, slots=True)
class HandedSocket:
    """The control socket, or that of [admin]. `identity`: device and inode of the file that is removed in the end."""

    address: Address
    socket_fd: int
    identity: tuple[int, ...]
    made_directory: str | None = None


@dataclass(frozen=True, slots=True)
class HandedUpgrade:
    """The upgrade that hands on. `client_fd`: the connection of its command, which reads on (-1: nobody does)."""

    id: str
    from_version: str
    began_at: float
    tunnels_s: float
    client_fd: int
    asked_by: Any
    again: str | None = None  # the signal that asked for a reload meanwhile


@dataclass(frozen=True, slots=True)
class HandedEvents:
    """The newest events: their time and themselves, as JSON."""

    first_id: int = 0
    newest_id: int = 0
    events: Any = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Document:
    version: int
    program: str  # the version of lbproxy that wrote this
    upgrade: HandedUpgrade
    settings: Settings
    table: RoutingTable
    grid: HandedGrid
    sockets: HandedSockets
    workers: HandedWorkers
    worker_count: int
    fleet: HandedFleet
    resources: HandedResources
    control_socket: HandedSocket
    admin_socket: HandedSocket | None
    copy: HandedDirectory | None
    started_at: float
    loaded_at: float  # seconds of the epoch
    ignores_hangup: bool
    has_terminal: bool
    ids: dict[str, int]
    history: Any
    generations: Any
    measured: Any
    events: HandedEvents = field(default_factory=HandedEvents)
