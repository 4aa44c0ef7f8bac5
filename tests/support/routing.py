"""A router on a grid of its own, and the table it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lbproxy.address import Address
from lbproxy.link.grid import Counter, Grid
from lbproxy.model import BackendId, BackendView, LeaseKind, PoolView, RoutingTable
from lbproxy.settings import DrainSettings, PoolLimits, PoolTimeouts, StickySettings
from lbproxy.worker.leases.affinity import Key
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.leases.router import Router

ROWS, CELLS = 2, 16


def view(slot: int, *, pool: str = "web", generation: int = 1, cell: int | None = None, token: str = "") -> BackendView:
    cell = slot if cell is None else cell
    return BackendView(BackendId(pool, slot, generation), Address("127.0.0.1", 20000 + slot), cell, token)


ONE, TWO, THREE = view(1), view(2), view(3)


@dataclass
class Bench:
    """A router, and the table it has."""

    router: Router
    grid: Grid
    drained: list[tuple[str, int]] = field(default_factory=list)
    limits: PoolLimits = field(default_factory=PoolLimits)
    drain: DrainSettings = field(default_factory=DrainSettings)
    balance: str = "round_robin"
    sticky: StickySettings | None = None
    slow_start_s: float = 0.0
    epoch: int = 0

    def pool(self, *backends: BackendView, name: str = "web") -> PoolView:
        newest = max((backend.id.generation for backend in backends), default=0)
        values = (self.balance, None, PoolTimeouts(), self.limits, self.drain, 2)
        return PoolView(name, 0, backends, newest, *values, sticky=self.sticky, slow_start_s=self.slow_start_s)

    def publish(self, *backends: BackendView, others: tuple[PoolView, ...] = ()) -> int:
        self.epoch += 1
        assert self.router.apply(RoutingTable(self.epoch, "", (), (), (self.pool(*backends), *others)))
        return self.epoch

    def claim(self, kind: LeaseKind = LeaseKind.REQUEST, key: Key = None, pool: str = "web") -> Lease | None:
        found = self.router.pool(pool)
        return self.router.claim(found, kind, key) if found is not None else None

    def must_claim(self, kind: LeaseKind = LeaseKind.REQUEST) -> Lease:
        lease = self.claim(kind)
        assert lease is not None
        return lease

    async def wait_claim(self, kind: LeaseKind = LeaseKind.REQUEST) -> Lease:
        return await self.router.wait_claim("web", kind, None)

    def leases(self, cell: int, counter: Counter = Counter.LEASES) -> int:
        return self.grid.sum(cell, counter)


@contextmanager
def routing(kind: type[Router] = Router) -> Iterator[Bench]:
    """A router that records each drained backend with the epoch of that moment."""
    grid = Grid.create(ROWS, CELLS)

    def say(backend: BackendView) -> None:
        made.drained.append((str(backend.id), made.router.table.epoch))

    made = Bench(kind(grid, 0, say), grid)
    yield made
    grid.close()
