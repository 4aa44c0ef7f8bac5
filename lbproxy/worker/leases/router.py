"""Who gets the work: the table in force, the leases on its backends, and those who wait for one.

`claim` is a plain def: between reading the table and holding the lease nothing else can run, so a claim cannot race
with a table. Belongs to no lane. Knows no HTTP beyond a host and a path, and no socket.
"""

import random
import traceback
from collections import deque
from collections.abc import Callable, Collection, Sequence

import trio

from lbproxy.errors import ProxyError
from lbproxy.link.grid import WIDTH, Counter, Grid
from lbproxy.link.messages import Increase
from lbproxy.model import BackendId, BackendView, LeaseKind, ListenerView, PoolView, RoutingTable
from lbproxy.policy.goodbye import within
from lbproxy.settings import EARLY_BODY_BYTES, DrainSettings
from lbproxy.telemetry.events import Event, Notice
from lbproxy.worker.leases.affinity import Key, StickyKey, still_fits
from lbproxy.worker.leases.choice import Choice
from lbproxy.worker.leases.drain import Lease, Leases
from lbproxy.worker.leases.routes import answers_itself, best_route, may_answer_itself, route_by_name
from lbproxy.worker.leases.slot_waits import SlotWaits
from lbproxy.worker.leases.waiting import Waiter, why_nobody
from lbproxy.worker.tally import Tally

RECHECK_S = 0.05  # while waiting for room that another worker may free: the grid does not wake anybody

REQUEST = LeaseKind.REQUEST
# As plain ints: adding a member of an enum costs three times as much. (Requests are what is left of all leases.)
COUNTER_OF: dict[LeaseKind, int] = {kind: Counter[kind.name].value for kind in LeaseKind if kind is not REQUEST}
REQUESTS = Counter.REQUESTS.value


class Router:
    """`on_drained(backend)` is called when a backend that left the table has no lease any more."""

    def __init__(
        self,
        grid: Grid,
        row: int,
        on_drained: Callable[[BackendView], None],
        emit: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.table = RoutingTable(0, "", (), (), ())
        self.tally = Tally()
        self._values = grid.values
        self._on_drained = on_drained
        self._emit = emit
        self._pools: dict[str, PoolView] = {}
        # By cell, not by id: hashing a BackendId costs more than everything else that is done with one here.
        self._leases: dict[int, Leases] = {}
        # What need not be looked for, because the table leaves no choice: the pool that gets all of a listener, by the
        # listener's key; the only backend of a pool, by the pool's name, as long as nothing is said against it.
        self.unrouted: dict[int, PoolView] = {}
        self.challenges: dict[bytes, bytes] = {}  # of our own ACME orders, by token
        self._answering: frozenset[int] = frozenset()  # listeners that answer some requests themselves, by their keys
        self._single: dict[str, Leases] = {}
        self.buffers_alike = True  # every pool waits for bodies as large as usual
        self._draining: dict[int, BackendView] = {}
        self._choice = Choice(grid.summing(Counter.LEASES.value), self._find_single)
        self._row_base = grid.base(row, 0)
        self.queues: dict[str, deque[Waiter]] = {}
        self._slot_waits = SlotWaits(self)
        self.drains_changed = trio.Event()

    # The table

    def apply(self, table: RoutingTable) -> bool:
        """Take a newer table. What has left it begins to drain; what is back in it is taken back."""
        if table.epoch <= self.table.epoch:
            return False
        before = {view.cell: view for pool in self._pools.values() for view in pool.every}
        drains = {pool.name: pool.drain for pool in (*self.table.pools, *table.pools)}
        self.table = table
        self._pools = {pool.name: pool for pool in table.pools}
        self._choice.apply(table.pools)
        present = {view.cell for pool in table.pools for view in pool.every}
        for cell in present:
            if self._draining.pop(cell, None) is not None:
                self._leases[cell].take_back()
        for pool in table.pools:
            for view in pool.every:
                if view.cell not in self._leases:
                    self._meet(view)
                self._leases[view.cell].backend = view
        for cell, view in before.items():
            if cell not in present:
                self._draining[cell] = view
                if self._leases[cell].empty:
                    self._is_drained(view)
                else:
                    self._leases[cell].begin(drains[view.id.pool], trio.current_time(), random.random())
        self.rouse_drains()
        self.unrouted.clear()
        self.challenges = {token.encode(): answer.encode() for token, answer in table.challenges}
        self._answering = frozenset(
            listener.key for listener in table.listeners if may_answer_itself(listener.settings, self.challenges)
        )
        if not table.routes:
            for listener in table.listeners:
                if listener.key in self._answering:
                    continue
                if (all_of_it := self._pools.get(listener.settings.pool or "")) is not None:
                    self.unrouted[listener.key] = all_of_it
        self.buffers_alike = all(pool.buffer_request_bytes == EARLY_BODY_BYTES for pool in table.pools)
        self._find_single()
        for name in list(self.queues):
            self._serve_queue(name)
        return True

    def _meet(self, view: BackendView) -> Leases:
        methods = self.tally.express(view.id.pool, view.id.generation)
        leases = self._leases[view.cell] = Leases(view, self._row_base + view.cell * WIDTH, methods)
        return leases

    def _find_single(self) -> None:
        self._single = {
            pool.name: self._leases[pool.backends[0].cell]
            for pool in self.table.pools
            if len(pool.backends) == 1
            and not pool.limits.connections
            and not pool.coming
            and pool.backends[0].id not in self._choice.skipped
        }

    def pool(self, name: str) -> PoolView | None:
        return self._pools.get(name)

    def route(self, listener: ListenerView, host: bytes, target: bytes) -> PoolView | None:
        """The pool of the first route that fits, else the listener's; None when nobody claims the request, or the
        listener answers it itself."""
        if (
            self._answering
            and listener.key in self._answering
            and answers_itself(listener.settings, target, self.challenges)
        ):
            return None
        route = best_route(self.table.routes, host, target) if self.table.routes else None
        name = listener.settings.pool if route is None else route.pool
        return self._pools.get(name) if name is not None else None

    def route_session(self, listener: ListenerView, server_name: str | None) -> PoolView | None:
        """The pool of a TCP session. `server_name`: what its ClientHello asks for, where that is read."""
        route = route_by_name(self.table.routes, server_name) if server_name is not None else None
        return self._pools.get((listener.settings.pool or "") if route is None else route.pool)

    # Leases

    def claim(
        self,
        pool: PoolView,
        kind: LeaseKind,
        key: Key,
        now: float | None = None,
        lease: Lease | None = None,
        *,
        avoid: Sequence[BackendView] = (),
    ) -> Lease | None:
        """A lease on a backend that is in the table and has room; None when there is none. `lease`: it is to be used.
        `avoid`: backends that are passed over as long as there is another one.

        `pool` must come from the table in force: ask `route` or `pool` after every await.
        """
        leases = self._single.get(pool.name)
        if leases is None:
            view = self._choice.choose(pool, kind, key, avoid)
            if view is None:
                return None
            leases = self._leases[view.cell]
        if lease is None:
            lease = Lease()
        lease.leases = leases
        lease.backend = leases.backend
        lease.kind = kind
        lease.started = lease.moved_at = trio.current_time() if now is None else now
        held = leases.held
        held.add(lease)
        self._values[leases.counters] = len(held)
        if kind is not REQUEST:
            self._values[leases.counters + COUNTER_OF[kind]] += 1
        return lease

    def cookie(self, lease: Lease, key: Key, proto: bytes) -> bytes:
        """The line that makes a client of a sticky pool stay with this backend's slot: see Choice.cookie."""
        return self._choice.cookie(lease.backend, key, secure=proto == b"https")

    async def wait_claim(self, pool_name: str, kind: LeaseKind, key: Key, since: float | None = None) -> Lease:
        """Same as `claim`, but waits in the pool's queue, bounded by count and age. Raises ProxyError (503).

        `since`: when this work was here first; what it claimed then could not be reached.
        """
        if isinstance(key, StickyKey):
            key = await self._slot_waits.wait(pool_name, key)
        pool = self._pools.get(pool_name)
        if pool is None:
            raise ProxyError(503, "destination_unavailable", "the pool is gone")
        now = trio.current_time()
        deadline = (now if since is None else since) + pool.limits.queue_timeout_s
        if since is not None and now >= deadline:
            raise ProxyError(503, "destination_unavailable", "no backend can be reached")
        if pool.is_hopeless or pool.maintenance is not None:
            raise why_nobody(pool)
        queue = self.queues.get(pool_name) or deque()
        if not queue and (lease := self.claim(pool, kind, key)) is not None:
            return lease
        if len(queue) >= pool.limits.queue_size:
            raise ProxyError(503, "connection_limit_reached", "the queue is full")
        waiter = Waiter(kind, key)
        queue.append(waiter)
        self.queues[pool_name] = queue
        try:
            while waiter.lease is None:
                pool = self._pools.get(pool_name)
                if pool is None or pool.is_hopeless or pool.maintenance is not None or trio.current_time() >= deadline:
                    raise why_nobody(pool)
                # Who stands far behind need not look often: somebody before him does.
                recheck_at = self._choice.recheck_at(pool, RECHECK_S * (queue.index(waiter) + 1))
                with trio.move_on_at(min(deadline, recheck_at)):
                    await waiter.called.wait()
                if waiter.lease is None:
                    waiter.called = trio.Event()
                    self._serve_queue(pool_name)
        except BaseException:
            if waiter.lease is not None:
                self.release(waiter.lease)  # called, but not there any more: the next one
            else:
                queue.remove(waiter)
            raise
        finally:
            self.tally.waited(pool_name, trio.current_time() - now)
            if not queue and self.queues.get(pool_name) is queue:
                del self.queues[pool_name]  # else every later request would look into an empty queue
        return waiter.lease

    def _serve_queue(self, pool_name: str) -> None:
        """Leases for those who wait, in their order, as far as there is room: nobody can come between."""
        queue, pool = self.queues[pool_name], self._pools.get(pool_name)
        if pool is None or pool.is_hopeless or pool.maintenance is not None:
            for waiter in queue:
                waiter.called.set()
            return
        while queue and (lease := self.claim(pool, queue[0].kind, still_fits(queue[0].key, pool))) is not None:
            waiter = queue.popleft()
            waiter.lease = lease
            waiter.called.set()

    def finish(self, lease: Lease) -> None:
        """Release the lease, and count the request."""
        leases, values = lease.leases, self._values
        counters, held = leases.counters, leases.held
        values[counters + REQUESTS] += 1
        held.discard(lease)
        values[counters] = len(held)
        if lease.kind is not REQUEST or self._draining or self.queues:
            self._released(lease, leases)

    def give_back(self, lease: Lease) -> None:
        """Same as `release`, for work that claims once more at once, in a task: it finds the same choice."""
        self._choice.turn_back(lease.backend.id.pool)
        self.release(lease)

    def hand_on(self, lease: Lease) -> Lease:
        """See Leases.hand_on."""
        return lease.leases.hand_on(lease)

    def release(self, lease: Lease) -> None:
        """The work is done, or lost. A backend that drains may be done with it."""
        leases = lease.leases
        leases.remove(lease)
        self._values[leases.counters] = len(leases.held)
        self._released(lease, leases)

    def _released(self, lease: Lease, leases: Leases) -> None:
        """What else there may be to do."""
        view = lease.backend
        if lease.kind is not REQUEST:
            self._values[leases.counters + COUNTER_OF[lease.kind]] -= 1
        if view.cell in self._draining:
            if leases.empty:
                self._is_drained(view)
        elif self.queues and self.queues.get(view.id.pool):
            self._serve_queue(view.id.pool)

    def change_kind(self, lease: Lease, kind: LeaseKind, say_goodbye: Callable[[float], None] | None = None) -> None:
        """What it is has become known; see Leases.change."""
        leases = lease.leases
        if lease.kind is not REQUEST:
            self._values[leases.counters + COUNTER_OF[lease.kind]] -= 1
        if kind is not REQUEST:
            self._values[leases.counters + COUNTER_OF[kind]] += 1
        leases.change(lease, kind, say_goodbye)
        if leases.draining:
            self.rouse_drains()

    def leases_of(self, view: BackendView) -> Leases | None:
        """None: this worker does not know the backend."""
        leases = self._leases.get(view.cell)
        return leases if leases is not None and leases.backend.id == view.id else None

    def drain_on(self, view: BackendView, drain: DrainSettings) -> Leases:
        """Know a backend that left the table before this worker had one: see moved_lease.py. Raises LookupError."""
        if view.cell in self._leases:
            raise LookupError(f"{view.id}: its cell is another backend's")
        self._draining[view.cell] = view
        leases = self._meet(view)
        leases.begin(drain, trio.current_time(), random.random())
        return leases

    def hold(self, lease: Lease) -> None:
        """Count a lease that was made elsewhere among those of its backend."""
        leases = lease.leases
        leases.held.add(lease)
        self._values[leases.counters] = len(leases.held)
        if lease.kind is not REQUEST:
            self._values[leases.counters + COUNTER_OF[lease.kind]] += 1
        self.rouse_drains()

    def take_counts(self) -> Increase:
        """What was counted since the last call."""
        return self.tally.take({(one.backend.id.pool, one.backend.id.generation) for one in self._leases.values()})

    def count(self, cell: int, counter: Counter) -> None:
        self._values[self._row_base + cell * WIDTH + counter] += 1

    def was_cut(self, lease: Lease) -> None:
        """Its owner has ended it, because its grace is over; to be called before `release`. run_drains may have come
        first, at the same moment: whoever it was, it is counted once.
        """
        if not lease.overdue:
            lease.overdue = True
            self._count_cut(lease)

    def _count_cut(self, lease: Lease) -> None:
        self.count(lease.backend.cell, Counter.CUT)
        self.tally.note("drain_cut", lease.backend.id.pool, lease.kind.value)

    def waiting(self, pool: str) -> int:
        """How many are in the pool's queue: who comes now stands behind them."""
        return len(self.queues[pool]) if pool in self.queues else 0

    async def leaves(self, backend: BackendView, within_s: float) -> bool:
        """Has it left the table, or does it within that time?"""
        with trio.move_on_after(within_s):
            while (pool := self._pools.get(backend.id.pool)) is not None and backend in pool.every:
                await self.drains_changed.wait()
            return True
        return False

    def skip(self, backend: BackendId) -> None:
        """Pass over a backend that could not be connected to: for a moment, or until the next table."""
        self._choice.skip(backend)
        self._find_single()

    # Draining

    async def run_drains(self) -> None:
        """Says goodbye when it is time, cuts the leases whose grace is over. Sleeps until the next one, or a change."""
        while True:
            now = trio.current_time()
            nearest: float | None = None
            for leases in list(self._leases.values()):
                self._drain_on(leases, now)
                due = leases.next_due(now)
                if due is not None and (nearest is None or due < nearest):
                    nearest = due
            with trio.move_on_at(float("inf") if nearest is None else nearest):
                await self.drains_changed.wait()

    def _drain_on(self, leases: Leases, now: float) -> None:
        """A mistake of ours in one lease must not keep the others from their end."""
        try:
            leases.tell(now)
            for lease in leases.due(now):
                self._count_cut(lease)
                lease.cut()
        except Exception:
            self._emit(Notice(f"a drain went wrong: {traceback.format_exc(limit=-4).strip()}"))

    def stop(self, grace_s: float, spared: Collection[LeaseKind] = ()) -> None:
        """The worker stops: every backend drains here, nobody longer than `grace_s`, but for the kinds in `spared`."""
        now = trio.current_time()
        for leases in self._leases.values():
            if (pool := self._pools.get(leases.backend.id.pool)) is not None:
                leases.begin(within(pool.drain, grace_s), now, random.random(), spared=spared)
        self.rouse_drains()

    def rouse_drains(self) -> None:
        self.drains_changed.set()
        self.drains_changed = trio.Event()

    def _is_drained(self, view: BackendView) -> None:
        del self._draining[view.cell]
        del self._leases[view.cell]
        self._on_drained(view)
