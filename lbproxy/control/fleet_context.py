"""What the fleet is made with: the parts of control that it uses, and what of the table belongs to no pool."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lbproxy.control.pool import no_token
from lbproxy.link.grid import CellBook, Grid
from lbproxy.model import BackendId, BackendSpec, ListenerView, RoutingTable
from lbproxy.settings import RouteSettings, Settings
from lbproxy.supervise.runner import Runner
from lbproxy.telemetry.events import Event


class WorkersLike(Protocol):
    def publish(self, table: RoutingTable) -> None: ...
    async def wait_applied(self, epoch: int) -> None: ...
    async def wait_drained(self, backend: BackendId, epoch: int) -> None: ...


class MakeBackend(Protocol):
    """Makes a ProcessRunner, or an AddressRunner where the pool has no command."""

    def __call__(self, spec: BackendSpec, *, reload: str | None = None, trial: bool | None = None) -> Runner: ...


@dataclass(frozen=True, slots=True)
class FleetContext:
    """The parts of control that the fleet uses."""

    emit: Callable[[Event], None]
    workers: WorkersLike
    grid: Grid
    cells: CellBook
    make: MakeBackend
    token_of: Callable[[BackendSpec], str] = no_token  # of a sticky cookie


@dataclass(frozen=True, slots=True)
class ProxyView:
    """The part of the table that does not belong to a pool."""

    name: str
    listeners: tuple[ListenerView, ...]
    routes: tuple[RouteSettings, ...]
    access: str
    access_path: str

    @classmethod
    def of(cls, settings: Settings, listeners: tuple[ListenerView, ...]) -> "ProxyView":
        return cls(settings.proxy.name, listeners, settings.routes, settings.log.access, settings.log.access_path)
