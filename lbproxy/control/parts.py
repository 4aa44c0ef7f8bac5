"""The parts of control that exist before Trio runs: made at a start, or taken over from the program before.

Knows the order in which they are made, and that each has an owner that closes it. app.py brings them to life.
"""

import contextlib
import os
from dataclasses import dataclass, replace

from lbproxy.control import passed_sockets, sd_notify
from lbproxy.control.acme_process import make_stand_ins
from lbproxy.control.admin_socket import AdminSocket
from lbproxy.control.certificates import Certificates
from lbproxy.control.control_socket import ControlSocket
from lbproxy.control.handed_on import Document
from lbproxy.control.pid_file import PidFile
from lbproxy.control.plan import resolve_all
from lbproxy.control.program import Program
from lbproxy.control.sockets import Sockets
from lbproxy.control.terminal import has_terminal
from lbproxy.link.grid import CellBook, Grid
from lbproxy.model import Generation, ListenerView
from lbproxy.settings import Settings
from lbproxy.supervise.private_directory import PrivateDirectory
from lbproxy.telemetry.event_ring import EventRing
from lbproxy.telemetry.log import Log
from lbproxy.telemetry.sink import Sink

_STANDARD_ERROR = 2
_LOG_FLUSH_S = 2.0
_SPARE_WORKERS = 8  # rows of the grid, so that a reload can raise the number of workers
_LEAST_CELLS = 4096


@dataclass(frozen=True, slots=True)
class Start:
    """How this process came to be. `copy`: of the package, see program_copy.py. `ignores_hangup`: HUP was ignored when
    lbproxy was started (nohup), and stays so. `document`: what the program before hands on; None: this is a start."""

    program: Program
    copy: PrivateDirectory | None = None
    ignores_hangup: bool = False
    document: Document | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    generations: tuple[Generation, ...]  # of the start, not numbered yet
    log: Log
    grid: Grid
    cells: CellBook
    sockets: Sockets
    passed: passed_sockets.PassedSockets
    listeners: tuple[ListenerView, ...]
    certificates: Certificates
    control_socket: ControlSocket
    admin_socket: AdminSocket
    ring: EventRing
    start: Start
    ignores_hangup: bool
    has_terminal: bool  # at the start
    notify: sd_notify.Notify | None


def make_parts(settings: Settings, start: Start, owned: contextlib.ExitStack) -> Parts:
    """`owned` closes them in the end. Raises LbproxyError, one line for the operator."""
    notify, passed = sd_notify.take(os.environ, os.getpid()), passed_sockets.take(os.environ, os.getpid())
    document = start.document
    generations = resolve_all(list(settings.pools), settings) if document is None else ()
    make_stand_ins(settings)
    certificates = Certificates(settings)
    if document is None:
        control_socket = ControlSocket(settings.proxy.control, settings.proxy.control_group)
    else:
        control_socket = ControlSocket.take_over(document.control_socket)
    owned.callback(control_socket.close)
    if settings.proxy.pid_file is not None:
        owned.callback(PidFile(settings.proxy.pid_file).close)
    grid, cells = _grid(settings, document)
    sockets = Sockets(cells, passed)
    owned.callback(sockets.close)
    admin_socket = AdminSocket()
    if document is None:
        listeners = sockets.bind(settings.listeners, settings.proxy.workers)
        owned.callback(admin_socket.close)
        if settings.admin is not None:
            admin_socket.bind(settings.admin.address)
    else:
        sockets.take_over(document.sockets)
        listeners = sockets.views(settings.listeners)
        owned.callback(admin_socket.close)
        if document.admin_socket is not None:
            admin_socket.take_over(document.admin_socket)
    ring = EventRing()
    log = Log(Sink(_STANDARD_ERROR), level=settings.log.level, format=settings.log.format, ring=ring)
    owned.callback(log.close, _LOG_FLUSH_S)
    return Parts(
        *(
            settings,
            generations,
            log,
            grid,
            cells,
            sockets,
            passed,
            listeners,
            certificates,
            control_socket,
            admin_socket,
        ),
        ring,
        start=start,
        ignores_hangup=start.ignores_hangup if document is None else document.ignores_hangup,
        has_terminal=has_terminal() if document is None else document.has_terminal,
        notify=notify,
    )


def grid_size(settings: Settings) -> tuple[int, int]:
    """Rows and cells of the grid. A reload may add workers, and has several generations at once."""
    columns = len(settings.listeners) + sum(1 + pool.size for pool in settings.pools)
    workers = settings.proxy.workers
    return max(workers, min(_SPARE_WORKERS, len(os.sched_getaffinity(0)))), max(_LEAST_CELLS, 8 * columns)


def settings_of(document: Document) -> Settings:
    """What was in force, with the control socket where it is."""
    settings = document.settings
    path = str(document.control_socket.address.path)
    return replace(settings, proxy=replace(settings.proxy, control=path))


def _grid(settings: Settings, document: Document | None) -> tuple[Grid, CellBook]:
    """A grid that is taken over gets a free row for each new worker, beside the old ones."""
    if document is None:
        grid = Grid.create(*grid_size(settings))
        return grid, CellBook(grid)
    handed = document.grid
    os.set_inheritable(handed.grid_fd, False)
    rows = max(handed.rows, len(document.workers.workers) + document.worker_count)
    grid = Grid.extend(handed.grid_fd, rows, handed.cells)
    return grid, CellBook(grid, handed.free)
