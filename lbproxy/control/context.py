"""The parts of control that its procedures and answers share."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lbproxy.control.certificate_orders import CertificateOrders
from lbproxy.control.certificates import Certificates
from lbproxy.control.change_ids import ChangeIds
from lbproxy.control.fleet import Fleet
from lbproxy.control.generations import Generations
from lbproxy.control.history import Record
from lbproxy.control.measured import Measured
from lbproxy.control.sockets import Sockets
from lbproxy.control.workers import Workers
from lbproxy.model import ListenerView
from lbproxy.settings import Settings
from lbproxy.supervise.hook import Ended, Hook
from lbproxy.telemetry.events import Event


@dataclass(frozen=True, slots=True)
class Hooks:
    """`record_of`: the record of a reload's id and a pool, when it is there."""

    run: Callable[[Hook], Awaitable[Ended]]
    record_of: Callable[[str, str], Awaitable[Record]]


@dataclass(slots=True)
class ControlContext:
    """The parts, and the settings in force. A reload changes both."""

    emit: Callable[[Event], None]
    fleet: Fleet
    sockets: Sockets
    workers: Workers
    settings: Settings
    listeners: tuple[ListenerView, ...]
    worker_count: int  # running workers. A reload can raise it up to `most_workers`; lowering it needs a restart
    most_workers: int
    # (old, new): applies the settings of the process as a whole, and returns what an operator should know of it.
    apply_live: Callable[[Settings, Settings], list[str]]
    certificates: Certificates
    orders: CertificateOrders
    loaded_at: float = field(default_factory=time.time)
    ids: ChangeIds = field(default_factory=ChangeIds)
    generations: Generations = field(default_factory=Generations)
    hooks: Hooks | None = None  # None: they are not run
    # Of the sessions of these pids; None: nobody looks.
    resident_bytes: Callable[[set[int]], Awaitable[dict[int, int]]] | None = None
    measured: Measured = field(default_factory=Measured)
