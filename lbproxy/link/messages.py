"""The messages between control and a worker. Values only: codec.py turns them into bytes, channel.py carries them.

Times are seconds left, never clock readings: each process has its own clock.
"""

from dataclasses import dataclass, field

from lbproxy.model import RoutingTable


@dataclass(frozen=True, slots=True)
class Welcome:
    """Control's first message. One descriptor comes with it: the shared grid."""

    worker: int  # 1..N; its row in the grid is worker - 1
    grid_rows: int
    grid_cells: int
    log_level: str
    log_format: str  # text | json


@dataclass(frozen=True, slots=True)
class Publish:
    """A whole table. With it come the listening sockets that were not in the one before, one for each of `sockets`, in
    this order."""

    table: RoutingTable
    sockets: tuple[int, ...]  # ListenerView.key of each descriptor


@dataclass(frozen=True, slots=True)
class Stop:
    """Accept no new work, finish the leases within `grace_s`, then exit."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open the access log anew (USR1)."""


@dataclass(frozen=True, slots=True)
class AskStats:
    ask: int


@dataclass(frozen=True, slots=True)
class Applied:
    epoch: int


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
class Stats:
    ask: int
    connections: int
    served: int  # exchanges of the express lane
    handed_over: dict[str, int]  # why the express lane gave an exchange away
    longest_turn_s: float = 0.0  # of the last minute: how long the reactor kept the worker's tasks waiting,
    longest_batch_s: float = 0.0  # and with one batch of events everybody else
    phases: dict[str, int] = field(default_factory=dict)  # how many connections of the express lane are in which


ToWorker = Welcome | Publish | Stop | Reopen | AskStats
ToControl = Applied | Drained | Unreachable | Stats
