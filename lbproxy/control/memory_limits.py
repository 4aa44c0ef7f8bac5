"""Replaces backends that use more than `restart.max_memory`, one at a time, as `lbproxy restart` does.

After each look of the usage book, which knows the resident sets, the exact size is read of those backends that are over
their limit. Knows nothing of /proc (supervise/memory_use.py), and nothing of how a backend is replaced. A backend that
is drained by command is left alone: the operator wants it as it is.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace

import trio

from lbproxy.config.units import duration_text, size_text
from lbproxy.control.context import ControlContext
from lbproxy.control.plan import RestartRequest
from lbproxy.control.pool import Member
from lbproxy.control.reloader import Reloader
from lbproxy.errors import LbproxyError
from lbproxy.model import BackendId, State
from lbproxy.policy.recycling import Recycled
from lbproxy.supervise.memory_use import proportional_bytes
from lbproxy.telemetry.events import Notice

HOW = "max_memory"  # who asked, in history and events
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class _Over:
    member: Member
    used_bytes: int
    limit_bytes: int

    @property
    def why(self) -> str:
        """Rounded up, so that the number is never the limit's own."""
        return f"uses {-(-self.used_bytes // _MIB)} MiB, more than max_memory {size_text(self.limit_bytes)}"


async def in_a_thread(leaders: Collection[int]) -> Mapping[int, int]:
    return await trio.to_thread.run_sync(proportional_bytes, leaders)


class MemoryLimits:
    """`measure`: the exact size of each session, in bytes, by the pid of its leader."""

    def __init__(
        self,
        context: ControlContext,
        reloader: Reloader,
        measure: Callable[[Collection[int]], Awaitable[Mapping[int, int]]] = in_a_thread,
    ) -> None:
        self._context = context
        self._reloader = reloader
        self._measure = measure
        self._recycled: dict[BackendId, Recycled] = {}

    async def run(self) -> None:
        while True:
            await self._context.measured.usage.wait_look()
            await self._reloader.wait_free()
            if suspects := self._suspects():
                used = await self._measure(suspects.keys())
                found = [_Over(member, used.get(pid, 0), limit) for pid, (member, limit) in suspects.items()]
                await self._act([one for one in found if one.used_bytes > one.limit_bytes])

    def _suspects(self) -> dict[int, tuple[Member, int]]:
        """The backends whose resident set is over their limit, with the limit, by pid."""
        resident_bytes_of = self._context.measured.usage.resident_bytes_of
        return {
            pid: (member, limit)
            for pool in self._context.fleet.pools.values()
            if (limit := pool.settings.restart.max_memory_bytes)
            for member in pool.members
            if member.published and member.backend.state in (State.READY, State.UNHEALTHY)
            if (pid := member.backend.pid) is not None and (resident_bytes_of(pid) or 0) > limit
        }

    async def _act(self, over: list[_Over]) -> None:
        """Replace the worst backend that is due. The next look finds the others, if they are still over."""
        alive = {member.backend.id for pool in self._context.fleet.pools.values() for member in pool.members}
        self._recycled = {id: last for id, last in self._recycled.items() if id in alive}
        for one in sorted(over, key=lambda one: one.limit_bytes / one.used_bytes):
            if self._is_due(one):
                await self._recycle(one)
                return

    def _is_due(self, over: _Over) -> bool:
        id, now = over.member.backend.id, trio.current_time()
        last = self._recycled.get(id)
        if last is None:
            return True
        if last.over_at is None:
            last = self._recycled[id] = replace(last, over_at=now)
            if last.due_at > now:
                after, left = duration_text(round(now - last.at)), duration_text(round(last.due_at - now))
                text = f"{id.name} {over.why}, {after} after it was replaced for that: it is replaced again in {left}"
                self._context.emit(Notice(f"{text} (is the limit too low?)"))
        return last.due_at <= now

    async def _recycle(self, over: _Over) -> None:
        id = over.member.backend.id
        try:
            await self._reloader.start(RestartRequest(id.pool, id.slot, recycle_why=over.why), {"how": HOW})
        except LbproxyError:
            return  # another reload has begun, or the backend is gone: the next look decides anew
        await self._reloader.wait_free()
        now = trio.current_time()
        last = self._recycled.get(id)
        self._recycled[id] = last.again(now) if last is not None else Recycled(now)
