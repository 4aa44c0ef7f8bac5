"""Which backend of a pool gets the next lease: those that may have it, then the one that `balance` picks among them.

Belongs to the router. Knows the table's pools, the loads in the grid, and which backends were just passed over; holds
no lease. Plain defs: nothing runs between a choice and the lease.
"""

import random
from collections.abc import Callable, Sequence

import trio

from lbproxy.model import BackendId, BackendView, LeaseKind, PoolView
from lbproxy.policy import slow_start
from lbproxy.policy.balance import pick
from lbproxy.worker.leases.affinity import Key, StickyKey
from lbproxy.worker.leases.slot_waits import is_coming
from lbproxy.worker.leases.sticky import StickySlots

SKIP_S = 1.0  # how long a backend that could not be connected to is passed over, if no table comes before

LONG_LIVED = frozenset((LeaseKind.WEBSOCKET, LeaseKind.TCP))


class Choice:
    """`load` gives the leases on a cell, over all workers. `on_back`: a backend is not passed over any more."""

    def __init__(self, load: Callable[[int], int], on_back: Callable[[], None]) -> None:
        self.skipped: dict[BackendId, float] = {}  # until when: clock readings
        self._new: dict[str, dict[int, float]] = {}  # by pool: the cells of backends in slow start, and when they came
        self._known: set[int] | None = None  # cells of the last table; None: there was none
        self._is_unusual = False  # something is skipped or new
        self._load = load
        self._on_back = on_back
        self._sticky: dict[str, StickySlots] = {}
        self._turns: dict[str, int] = {}  # of each pool: were they shared, two pools could take turns with each other
        self._first_turn = random.randrange(1 << 16)  # workers that start together do not all begin with the same one

    def apply(self, pools: Sequence[PoolView]) -> None:
        """A newer table: nothing is skipped any more, and slow start begins for a backend that was not in the last one.

        Not for all in the first table: a worker that is started again knows nothing of their age.
        """
        self.skipped.clear()
        self._new = {pool.name: new for pool in pools if pool.slow_start_s and (new := self._new_in(pool))}
        # Not by id: the successor of a backend that is restarted has the same.
        self._known = {view.cell for pool in pools for view in pool.backends or pool.resting}
        self._is_unusual = bool(self._new)
        self._sticky = {pool.name: StickySlots(pool) for pool in pools if pool.sticky is not None}

    def choose(self, pool: PoolView, kind: LeaseKind, key: Key, avoid: Sequence[BackendView]) -> BackendView | None:
        """None when no backend has room. `avoid`: backends that are passed over as long as there is another one."""
        if pool.is_choosy or self._is_unusual:
            return self._choose_carefully(pool, kind, key, avoid)
        candidates = pool.backends or (pool.resting if kind is LeaseKind.TCP else ())
        if avoid:
            candidates = tuple(view for view in candidates if view not in avoid) or candidates
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        if kind in LONG_LIVED:
            candidates = tuple(view for view in candidates if view.id.generation == pool.newest) or candidates
        turn = self._turns[pool.name] = self._turns.get(pool.name, self._first_turn) + 1
        hashed: bytes | None = key  # type: ignore[assignment]  # a StickyKey is of a pool that is choosy
        return pick(pool.balance, candidates, self._load, turn, hashed, draw=random.random)

    def _choose_carefully(
        self, pool: PoolView, kind: LeaseKind, key: Key, avoid: Sequence[BackendView]
    ) -> BackendView | None:
        """Same as `choose`, with limits, cookies, and backends that are passed over or new."""
        if isinstance(key, StickyKey):
            named = self._named(pool, key, avoid)
            if named is not None or is_coming(pool, key):
                return named
            key = key.hashed
        limit = pool.limits.connections
        candidates: Sequence[BackendView] = pool.backends or (pool.resting if kind is LeaseKind.TCP else ())
        if limit or self.skipped:
            candidates = [view for view in candidates if self._has_room(view, limit)]
        if avoid:
            candidates = [view for view in candidates if view not in avoid] or candidates
        if kind in LONG_LIVED:
            candidates = [view for view in candidates if view.id.generation == pool.newest] or candidates
        if not candidates:
            return None
        load: Callable[[int], float] = self._load
        if pool.name in self._new and (shares := self._shares(pool, candidates)):
            if pool.balance == "round_robin":
                candidates = slow_start.taking_part(candidates, shares, random.random)
            else:
                load = slow_start.eased(load, shares, random.random)
        turn = self._turns[pool.name] = self._turns.get(pool.name, self._first_turn) + 1
        return pick(pool.balance, candidates, load, turn, key, draw=random.random)

    def cookie(self, view: BackendView, key: Key, *, secure: bool) -> bytes:
        """The line that binds the client to this backend's slot, behind a CRLF; empty where it is bound already."""
        if not isinstance(key, StickyKey) or key.token == view.token.encode():
            return b""
        slots = self._sticky.get(view.id.pool)
        return slots.line(view, secure=secure) if slots is not None else b""

    def turn_back(self, pool: str) -> None:
        """The next choice is made as the last one was: a claim that is made a second time took no turn."""
        if pool in self._turns:
            self._turns[pool] -= 1

    def skip(self, backend: BackendId) -> None:
        self.skipped[backend] = trio.current_time() + SKIP_S
        self._is_unusual = True

    def recheck_at(self, pool: PoolView, recheck_s: float) -> float:
        """When a request in the queue should look again although no event calls it."""
        if pool.limits.connections and pool.backends:
            return trio.current_time() + recheck_s
        return min((self.skipped[view.id] for view in pool.backends if view.id in self.skipped), default=float("inf"))

    def _named(self, pool: PoolView, key: StickyKey, avoid: Sequence[BackendView]) -> BackendView | None:
        """The backend of the client's slot, if it has room: also for a WebSocket while a reload runs."""
        for view in self._sticky[pool.name].named(key.token):
            if view not in avoid and self._has_room(view, pool.limits.connections):
                return view
        return None

    def _new_in(self, pool: PoolView) -> dict[int, float]:
        """The cells of the backends in slow start in a table that comes, and when they came."""
        if self._known is None:
            return {}
        now, came = trio.current_time(), self._new.get(pool.name, {})
        new = [view.cell for view in pool.backends if view.cell in came or view.cell not in self._known]
        return {cell: came.get(cell, now) for cell in new}

    def _shares(self, pool: PoolView, candidates: Sequence[BackendView]) -> dict[int, float]:
        """The share of each candidate, by cell; empty when none is in slow start any more."""
        now, new = trio.current_time(), self._new[pool.name]
        for cell in [cell for cell, came in new.items() if now >= came + pool.slow_start_s]:
            del new[cell]
        if not new:
            del self._new[pool.name]
            self._is_unusual = bool(self.skipped or self._new)
            return {}
        ages = {view.cell: now - new[view.cell] if view.cell in new else None for view in candidates}
        return slow_start.shares(ages, pool.slow_start_s)

    def _has_room(self, view: BackendView, limit: int) -> bool:
        until = self.skipped.get(view.id)
        if until is not None:
            if trio.current_time() < until:
                return False
            del self.skipped[view.id]
            self._is_unusual = bool(self.skipped or self._new)
            self._on_back()
        return not limit or self._load(view.cell) < limit
