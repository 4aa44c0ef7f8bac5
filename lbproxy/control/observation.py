"""What is measured of one pool while a change of it runs, for its verdict: who waited, Closes, and memory."""

import trio

from lbproxy.control.context import ControlContext
from lbproxy.control.pool import Pool
from lbproxy.supervise.usage import read_usage

LOOK_S = 1.0
_CLOSE = "websocket_close"  # see Incidents


async def resident_bytes(pids: set[int]) -> int:
    """Of all processes in the sessions of these; looked up in a thread."""
    usages = await trio.to_thread.run_sync(read_usage, pids)
    return sum(usage.resident_bytes for usage in usages.values())


class Observation:
    """Begins when it is made; `run` beside the change; `take_in` at its end."""

    def __init__(self, context: ControlContext, pool: Pool) -> None:
        self._context = context
        self._pool = pool
        self._waited = self._waits()
        self._closes = self._closed()
        self.held: int | None = None  # requests that left the queue meanwhile
        self.websocket_closes: dict[str, int] | None = None  # by code
        self.peak_memory_bytes: int | None = None  # resident, of all backends together; None: there was no look

    async def run(self) -> None:
        look = self._context.resident_bytes
        while look is not None:
            pids = {member.backend.pid for member in self._pool.members if member.backend.pid is not None}
            if pids:
                self.peak_memory_bytes = max(self.peak_memory_bytes or 0, await look(pids))
            await trio.sleep(LOOK_S)

    async def take_in(self) -> None:
        """Ask the workers for their last counts."""
        await self._context.workers.stats()
        self.held = self._waits() - self._waited
        closed = self._closed()
        more = {code: number - self._closes.get(code, 0) for code, number in closed.items()}
        self.websocket_closes = {code: number for code, number in more.items() if number}

    def _waits(self) -> int:
        waits = self._context.measured.tallies.waits.get(self._pool.name)
        return waits.count if waits is not None else 0

    def _closed(self) -> dict[str, int]:
        by_code: dict[str, int] = {}
        for (pool, code, *_), number in self._context.measured.tallies.incidents.get(_CLOSE, {}).items():
            if pool == self._pool.name:
                by_code[code] = by_code.get(code, 0) + number
        return by_code
