"""All pools and their members, and the only writer of the routing table.

Knows which backend may be in the table and when a cell of the grid is free again. Does not know the reason of a change:
rollout.py and app.py do.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import trio

from lbproxy.control.ejection import Ejection
from lbproxy.control.fleet_context import FleetContext, ProxyView
from lbproxy.control.handed_on import HandedCell, HandedFleet
from lbproxy.control.names import Names
from lbproxy.control.pool import Member, Pool
from lbproxy.control.pool_handle import PoolHandle
from lbproxy.model import BackendId, BackendSpec, Generation, RoutingTable
from lbproxy.settings import PoolSettings
from lbproxy.supervise.runner import Runner
from lbproxy.telemetry.events import (
    BackendExited,
    BackendHealthy,
    Event,
)


class Fleet:
    def __init__(self, context: FleetContext, proxy_view: ProxyView) -> None:
        self.pools: dict[str, Pool] = {}
        self.proxy_view = proxy_view
        self.names = Names()
        self._context = context
        self._numbers: dict[str, int] = {}  # newest generation of each pool, also of one that is gone
        self._epoch = 0
        self._table: RoutingTable | None = None
        self._dirty = trio.Event()
        self._force = False
        self._nursery: trio.Nursery | None = None
        self._leaving: list[HandedCell] = []  # of backends that are gone
        self.challenges: tuple[tuple[str, str], ...] = ()  # of ACME orders: for the next table

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the task of every backend."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._publish_changes)
            task_status.started()

    @property
    def table(self) -> RoutingTable | None:
        """The newest one; None before the first."""
        return self._table

    # Pools

    def next_number(self, pool: str) -> int:
        """The number of the pool's next generation. No number is used twice."""
        self._numbers[pool] = self._numbers.get(pool, 0) + 1
        return self._numbers[pool]

    def numbers(self) -> dict[str, int]:
        """The newest generation of each pool, also of one that is gone."""
        return dict(self._numbers)

    def go_on_behind(self, numbers: dict[str, int]) -> None:
        """No number up to these is used again: an earlier lbproxy has had them."""
        for pool, number in numbers.items():
            self._numbers[pool] = max(number, self._numbers.get(pool, 0))

    def open_pool(self, settings: PoolSettings, generation: Generation) -> Pool:
        """Open a pool without members."""
        return self._add_pool(settings, generation, self._context.cells.take())

    def _add_pool(self, settings: PoolSettings, generation: Generation, cell: int) -> Pool:
        context = self._context
        pool = Pool(settings, generation, context.grid, cell, names=self.names, token_of=context.token_of)
        self.pools[pool.name] = pool
        return pool

    def start_pool(self, settings: PoolSettings, generation: Generation) -> None:
        """Open a pool and start all its members. Each serves as soon as it is ready. A table follows.

        A target whose name was never resolved gets its members when it is (resolver.py).
        """
        pool = self.open_pool(settings, generation)
        if settings.command is None:
            targets = self.names.expand(settings.targets)
            generation = replace(generation, settings=replace(settings, targets=targets, size=len(targets)))
        for slot in range(1, generation.settings.size + 1):
            self.start_member(pool, BackendSpec(slot, generation)).published = True
        self.touch()

    async def close_pool(self, pool: Pool, reload: str | None = None) -> None:
        """Drain and stop the members, then remove the pool. `reload`: the id that the events carry."""
        if reload is not None:
            pool.begin_reload(reload)
        pool.closing = True
        handle = PoolHandle(self, pool, reload=reload)
        members = list(pool.members)
        handle.publish([], members)
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(handle.retire, member)
        if self.pools.get(pool.name) is pool:
            del self.pools[pool.name]
        await self._context.workers.wait_applied(self.publish())
        self._context.cells.give_back(pool.cell)

    def retire_unpublished(self, pool: Pool) -> None:
        """Drain and stop the members that an ended rollout has left unpublished."""
        handle = PoolHandle(self, pool)
        for member in pool.members:
            if not member.published and self._nursery is not None:
                self._nursery.start_soon(handle.retire, member)

    # Members

    def start_member(
        self, pool: Pool, spec: BackendSpec, *, reload: str | None = None, trial: bool | None = None
    ) -> Member:
        """Start a backend. It is not published."""
        runner = self._context.make(spec, reload=reload, trial=trial)
        member = Member(spec, runner, self._context.cells.take())
        self._begin(pool, member)
        return member

    def _begin(self, pool: Pool, member: Member) -> None:
        assert self._nursery is not None, "the fleet does not run"

        def changed(_: Runner) -> None:
            member.see_change()
            self.touch()

        member.runner.on_change = changed
        member.runner.on_reachable = lambda _: self.touch(force=True)
        pool.add(member)
        self._nursery.start_soon(self._live, pool, member)

    async def _live(self, pool: Pool, member: Member) -> None:
        await member.runner.run()
        member.published = False
        pool.members.remove(member)
        if member.in_table:
            self.publish()
        member.gone.set()
        leaving = HandedCell(pool.name, str(member.backend.id), member.cell, member.left_epoch)
        await self._free_cell(pool, leaving)

    async def _free_cell(self, pool: Pool, leaving: HandedCell) -> None:
        """The cell is free when no worker writes to it any more. The process is gone, so its leases end soon."""
        self._leaving.append(leaving)
        if leaving.left_epoch:
            await self._context.workers.wait_drained(BackendId.parse(leaving.backend), leaving.left_epoch)
        self._leaving.remove(leaving)
        pool.remember(leaving.cell)
        self._context.cells.give_back(leaving.cell)

    # Over an exec

    @property
    def is_settled(self) -> bool:
        """Whether every backend can be handed on now."""
        return all((one.published or one.held) and one.runner.is_settled for one in self._members())

    def hand_on(self, drain_of: Callable[[Member], Any]) -> HandedFleet:
        """`drain_of`: what is known of the command that drains a member."""
        pools = tuple(pool.hand_on(drain_of) for pool in self.pools.values())
        names = tuple((host, port, addresses) for (host, port), addresses in self.names.found.items())
        return HandedFleet(self._epoch, self.numbers(), pools, tuple(self._leaving), names)

    def take_over(self, handed: HandedFleet) -> list[tuple[Pool, Member, Any]]:
        """Go on with the backends of an earlier program of this control. Returns those that a command drains still. A
        table follows."""
        assert self._nursery is not None, "the fleet does not run"
        self._epoch = handed.epoch
        self.go_on_behind(handed.numbers)
        self.names.found.update({(host, port): addresses for host, port, addresses in handed.names})
        drained = []
        for one in handed.pools:
            pool = self._add_pool(one.settings, one.generations[one.generation], one.cell)
            pool.take_over(one)
            for entry in one.members:
                spec = BackendSpec(entry.slot, one.generations[entry.generation])
                member = Member(spec, self._context.make(spec), entry.cell)
                member.take_over(entry)
                member.runner.update(one.settings)
                self._begin(pool, member)
                if entry.drain is not None:
                    drained.append((pool, member, entry.drain))
        for leaving in handed.leaving:
            if leaving.pool in self.pools:
                self._nursery.start_soon(self._free_cell, self.pools[leaving.pool], leaving)
        return drained

    def refused(self, id: BackendId, why: str) -> None:
        """A worker could not connect to the backend."""
        del why  # the next probe reports the reason
        for member in self._members():
            if member.backend.id == id:
                member.runner.refused()

    def note_errors(self, id: BackendId, errors: tuple[int, str]) -> Ejection | str | None:
        """Errors that workers saw, for `passive`: see Ejections.note."""
        pool = self.pools.get(id.pool)
        return pool.note_errors(id, errors, trio.current_time()) if pool is not None else None

    def settle_ejections(self) -> float:
        """Say which ejected backends are back. Returns when the next one is: a reading of Trio's clock."""
        for pool in self.pools.values():
            for id, why in pool.settle_ejections(trio.current_time()):
                self._context.emit(BackendHealthy(pool.name, str(id), why))
        return min((pool.next_return for pool in self.pools.values()), default=float("inf"))

    def observe(self, event: Event) -> None:
        """Keep how a backend ended, for the verdict on a reload."""
        if isinstance(event, BackendExited) and event.pool in self.pools:
            for member in self.pools[event.pool].members:
                if str(member.backend.id) == event.backend:
                    member.see_exit(event)

    async def stop(self, deadline: float) -> None:
        """Stop every backend: TERM, KILL after its stop_timeout, and KILL to all that are left at `deadline`."""
        async with trio.open_nursery() as nursery:
            for member in self._members():
                nursery.start_soon(_stop_until, member, deadline)

    def kill(self) -> None:
        for member in self._members():
            member.runner.kill()

    def _members(self) -> list[Member]:
        return [member for pool in self.pools.values() for member in pool.members]

    # The table

    def touch(self, *, force: bool = False) -> None:
        """Publish a table soon, one for all changes of this moment. `force`: even if it is equal to the last."""
        self._force |= force
        self._dirty.set()

    def publish(self) -> int:
        """Make the next table now and send it. Returns its epoch."""
        self.settle_ejections()
        self._epoch += 1
        proxy_view = self.proxy_view
        self._table = RoutingTable(
            epoch=self._epoch,
            name=proxy_view.name,
            listeners=proxy_view.listeners,
            routes=proxy_view.routes,
            pools=tuple(pool.view() for pool in self.pools.values()),
            access=proxy_view.access,
            access_path=proxy_view.access_path,
            challenges=self.challenges,
        )
        for pool in self.pools.values():
            serving = pool.serving()
            for member in pool.members:
                was, member.in_table = member.in_table, member in serving
                if was and not member.in_table:
                    member.left_epoch = self._epoch
        self._context.workers.publish(self._table)
        return self._epoch

    async def _publish_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty = trio.Event()
            self.settle_ejections()
            views = tuple(pool.view() for pool in self.pools.values())
            if self._force or self._table is None or views != self._table.pools:
                self._force = False
                self.publish()

    async def wait_applied(self, epoch: int) -> None:
        await self._context.workers.wait_applied(epoch)

    # Used by PoolHandle

    @property
    def context(self) -> FleetContext:
        return self._context


async def _stop_until(member: Member, deadline: float) -> None:
    with trio.CancelScope(deadline=deadline) as patience:
        await member.runner.stop()
    if patience.cancelled_caught:
        member.runner.kill("the time for stopping was over")
        await member.runner.stop()
