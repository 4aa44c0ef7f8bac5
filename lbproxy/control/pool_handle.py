"""One pool as a rollout, a drain by command and the resolver move its backends: make, prove, publish, drain, stop.

Knows the fleet, which makes the tables, and says in events what becomes of a backend. Decides nothing: rollout.py does.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from lbproxy.control.fleet_context import FleetContext
from lbproxy.control.pool import Member, Pool
from lbproxy.control.rollout import Broken
from lbproxy.control.warm_up import warm_up
from lbproxy.link.grid import Counter
from lbproxy.model import BackendSpec, State
from lbproxy.telemetry.events import BackendDrained, BackendDraining, BackendTakenBack, Event

EXIT_EVENT_S = 1.0  # how long a rollback waits for a dead backend's exit code and output
LAST_LINE_S = 0.05  # between the last byte of a backend's last lease and TERM: its code may still run after that byte


class WholeFleet(Protocol):
    @property
    def context(self) -> FleetContext: ...

    def start_member(
        self, pool: Pool, spec: BackendSpec, *, reload: str | None = None, trial: bool | None = None
    ) -> Member: ...

    def publish(self) -> int: ...

    async def wait_applied(self, epoch: int) -> None: ...


class PoolHandle:
    """One pool as a rollout needs it (rollout.FleetLike). `reload` is the id that its events carry."""

    def __init__(self, fleet: WholeFleet, pool: Pool, *, reload: str | None = None, min_ready_s: float = 0.0) -> None:
        self._fleet = fleet
        self._pool = pool
        self._reload = reload
        self._min_ready_s = min_ready_s
        # Of each draining member: when the drain began, and how many of its leases were cut before.
        self._since: dict[int, tuple[float, int]] = {}

    def make(self, spec: BackendSpec) -> Member:
        return self._fleet.start_member(self._pool, spec, reload=self._reload, trial=True)

    def make_again(self, spec: BackendSpec) -> Member:
        return self._fleet.start_member(self._pool, spec, reload=self._reload, trial=False)

    async def wait_proved(self, member: Member) -> None:
        if paths := member.spec.generation.settings.reload.warm_up:
            await member.runner.wait_ready()
            if (address := member.backend.address) is not None:
                await warm_up(address, paths, member.runner.settings)
        await member.runner.wait_proved(self._min_ready_s)
        member.begin_watch()

    async def wait_died(self, member: Member) -> Broken:
        await member.died.wait()
        with trio.move_on_after(EXIT_EVENT_S):
            await member.exit_said.wait()
            assert member.last_exit is not None
            return Broken(f"{member.last_exit.how} after it was proved", member.last_exit.output)
        return Broken("died after it was proved")

    def publish(self, add: Sequence[Member], remove: Sequence[Member]) -> int:
        for member in add:
            member.published, member.held = True, False
            if member.backend.state is State.DRAINING:
                member.runner.take_back()
                self._say(BackendTakenBack, member)
        for member in remove:
            member.published = False
            if member.backend.state in (State.READY, State.UNHEALTHY):
                leases = self._fleet.context.grid.sum(member.cell, Counter.LEASES)
                self._since[id(member)] = trio.current_time(), self._cut(member)
                member.runner.drain()
                self._say(BackendDraining, member, leases=leases)
        return self._fleet.publish()

    def hold(self, member: Member) -> None:
        """Give the backend no new work from now on; what it has in hand drains. Its process goes on."""
        leases = self._fleet.context.grid.sum(member.cell, Counter.LEASES)
        self._since[id(member)] = trio.current_time(), self._cut(member)
        member.held, member.published = True, False
        self._say(BackendDraining, member, leases=leases)
        self._fleet.publish()

    async def wait_applied(self, epoch: int) -> None:
        await self._fleet.wait_applied(epoch)

    async def wait_drained(self, member: Member) -> None:
        """Invariant 4: every live worker reports it as drained, for a table without it, or its grace is over."""
        if not member.left_epoch:
            return  # it was never in a table
        drain = self._pool.settings.drain
        grace_s = max(drain.request_s, drain.stream_s, drain.websocket_s, drain.tcp_s) + drain.goodbye_s
        workers, grid = self._fleet.context.workers, self._fleet.context.grid
        drained = False
        with trio.move_on_after(grace_s):
            await workers.wait_drained(member.backend.id, member.left_epoch)
            drained = True
        if not drained and grid.sum(member.cell, Counter.TRANSFER):
            with trio.move_on_after(max(0.0, drain.transfer_s + drain.goodbye_s - grace_s)):
                await workers.wait_drained(member.backend.id, member.left_epoch)
        began, cut_before = self._since.pop(id(member), (trio.current_time(), self._cut(member)))
        self._say(
            BackendDrained, member, after_s=round(trio.current_time() - began, 3), cut=self._cut(member) - cut_before
        )
        if drained:
            await trio.sleep(LAST_LINE_S)

    async def stop(self, member: Member) -> None:
        await member.runner.stop()
        await member.gone.wait()

    async def wait_gone(self, member: Member) -> None:
        await member.gone.wait()

    async def retire(self, member: Member) -> None:
        """Drain a member that has left the table, then stop it."""
        await self.wait_drained(member)
        await self.stop(member)

    def _cut(self, member: Member) -> int:
        return self._fleet.context.grid.sum(member.cell, Counter.CUT)

    def _say(self, kind: Callable[..., Event], member: Member, **facts: float) -> None:
        id = member.backend.id
        self._fleet.context.emit(kind(pool=id.pool, backend=str(id), reload=self._reload, **facts))
