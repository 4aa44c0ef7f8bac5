"""`drain` and `undrain`: one backend gets no new work, by command, until it is told otherwise or replaced.

The process goes on, is probed, and is started again after a crash, still without work. Knows one backend at a time;
a reload replaces it like any other.
"""

from dataclasses import dataclass
from typing import Any

import trio

from lbproxy.control.context import ControlContext
from lbproxy.control.plan import CannotDo, running_pool
from lbproxy.control.pool import Member, Pool
from lbproxy.control.pool_handle import PoolHandle
from lbproxy.model import State
from lbproxy.telemetry.events import BackendTakenBack, ReloadDone, ReloadFinished, ReloadStarted


@dataclass(slots=True)
class _Drain:
    id: str
    scope: trio.CancelScope
    asked_by: dict[str, int | str] | None


class Drains:
    def __init__(self, context: ControlContext) -> None:
        self._context = context
        self._running: dict[int, _Drain] = {}  # by the member's id()
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def drain(self, pool_name: str, slot: int, *, force: bool, asked_by: dict[str, int | str] | None = None) -> str:
        """Begin, and return the id that its events carry; the same for who asks again. Raises UnknownPool, CannotDo."""
        pool, member = self._find(pool_name, slot)
        if (running := self._running.get(id(member))) is not None:
            return running.id
        # A drain that was begun in this moment has not taken its backend out of the table yet.
        others = [one for one in pool.members if one.published and one is not member and id(one) not in self._running]
        is_last = not any(one.backend.state is State.READY for one in others)
        if member.published and member.backend.state is State.READY and is_last and not force:
            raise CannotDo(f"{pool_name}.{slot} is the last ready backend of its pool: --force drains it all the same")
        assert self._nursery is not None
        drain = self._running[id(member)] = _Drain(self._context.ids.next("d"), trio.CancelScope(), asked_by)
        self._nursery.start_soon(self._carry_out, pool, member, drain)
        return drain.id

    def of(self, member: Member) -> dict[str, Any] | None:
        """What is known of the command that drains it still; None: none does."""
        running = self._running.get(id(member))
        return None if running is None else {"id": running.id, "asked_by": running.asked_by}

    def take_over(self, pool: Pool, member: Member, handed: dict[str, Any]) -> None:
        """Go on with a drain that an earlier program of this control has begun."""
        assert self._nursery is not None
        drain = _Drain(str(handed["id"]), trio.CancelScope(), handed.get("asked_by"))
        self._running[id(member)] = drain
        self._nursery.start_soon(self._carry_out, pool, member, drain, True)

    def undrain(self, pool_name: str, slot: int) -> None:
        """It gets work again. Raises UnknownPool, CannotDo."""
        pool, member = self._find(pool_name, slot)
        if not member.held:
            raise CannotDo(f"{pool_name}.{slot} is not drained")
        member.held = False
        member.published = True
        if (running := self._running.get(id(member))) is not None:
            running.scope.cancel()
        self._context.emit(BackendTakenBack(pool.name, str(member.backend.id)))
        self._context.fleet.publish()

    def _find(self, pool_name: str, slot: int) -> tuple[Pool, Member]:
        pool = running_pool(self._context, pool_name)
        if pool.reloading:
            raise CannotDo(f"{pool_name} is being reloaded: its backends come and go by themselves")
        member = next((one for one in pool.members if one.spec.slot == slot), None)
        if member is None:
            raise CannotDo(f"there is no backend {pool_name}.{slot}")
        return pool, member

    async def _carry_out(self, pool: Pool, member: Member, drain: _Drain, taken_over: bool = False) -> None:
        context, began = self._context, trio.current_time()
        before = pool.totals()
        if not taken_over:
            context.emit(ReloadStarted(drain.id, "command", (pool.name,), "drain", asked_by=drain.asked_by))
        result = "aborted"
        try:
            with drain.scope:
                handle = PoolHandle(context.fleet, pool, reload=drain.id)
                if not taken_over:
                    handle.hold(member)
                await handle.wait_drained(member)
                result = "ok"
        finally:
            del self._running[id(member)]
        requests, failed, cut, closed = pool.served_since(before)
        generation = member.spec.generation.number
        done = ReloadDone(
            *(drain.id, pool.name, result, generation, generation),
            duration_s=round(trio.current_time() - began, 3),
            requests=requests,
            failed=failed,
            cut=cut,
            websockets_closed=closed,
            why=None if result == "ok" else "it was taken back",
            verb="drain",
            asked_by=drain.asked_by,
            backend=member.backend.id.name,
        )
        context.emit(done)
        exit_code = 0 if result == "ok" else 1
        context.emit(ReloadFinished(drain.id, exit_code, f"{member.backend.id.name} is {pool.state_of(member)}"))
