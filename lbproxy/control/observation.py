"""What is measured of one pool while a change of it runs, for its verdict: who waited, Closes, memory, and how the
generations compare over the same minutes."""

import trio

from lbproxy.control.context import ControlContext
from lbproxy.control.pool import Pool
from lbproxy.control.tallies import GenerationCounts
from lbproxy.supervise.usage import read_usage

LOOK_S = 1.0
Facts = dict[str, int | float | None]
_CLOSE = "websocket_close"  # see Incidents


async def resident_bytes(pids: set[int]) -> dict[int, int]:
    """Of all processes in the session of each; looked up in a thread."""
    usages = await trio.to_thread.run_sync(read_usage, pids)
    return {pid: usage.resident_bytes for pid, usage in usages.items()}


class Observation:
    """Begins when it is made; `run` beside the change; `take_in` at its end."""

    def __init__(self, context: ControlContext, pool: Pool) -> None:
        self._context = context
        self._pool = pool
        self._waited = self._waits()
        self._closes = self._closed()
        self._longest = context.measured.tallies.watch_waits(pool.name)
        self.held: int | None = None  # requests that left the queue meanwhile
        self.longest_hold_s: float | None = None  # of them
        self.websocket_closes: dict[str, int] | None = None  # by code
        self.peak_memory_bytes: int | None = None  # resident, of all backends together; None: there was no look
        self.compared: tuple[Facts, ...] = ()  # one for each generation that answered something
        self._memory: dict[int, int] = {}  # the largest backend of each generation, in bytes
        nothing = GenerationCounts()
        self._before = {key: counts.since(nothing) for key, counts in self._generations().items()}

    async def run(self) -> None:
        look = self._context.resident_bytes
        while look is not None:
            generations = {
                member.backend.pid: member.spec.generation.number
                for member in self._pool.members
                if member.backend.pid is not None
            }
            resident = await look(set(generations)) if generations else {}
            if resident:
                self.peak_memory_bytes = max(self.peak_memory_bytes or 0, sum(resident.values()))
                for pid, size_bytes in resident.items():
                    number = generations[pid]
                    self._memory[number] = max(self._memory.get(number, 0), size_bytes)
            await trio.sleep(LOOK_S)

    async def take_in(self) -> None:
        """Ask the workers for their last counts."""
        await self._context.workers.stats()
        self.held = self._waits() - self._waited
        self.longest_hold_s = round(self._longest.longest_s, 3)
        closed = self._closed()
        more = {code: number - self._closes.get(code, 0) for code, number in closed.items()}
        self.websocket_closes = {code: number for code, number in more.items() if number}

        nothing = GenerationCounts()
        for (_, number), counts in sorted(self._generations().items()):
            meanwhile = counts.since(self._before.get((self._pool.name, number), nothing))
            if meanwhile.durations.count:
                self.compared += (self._facts(number, meanwhile),)

    def _facts(self, number: int, counts: GenerationCounts) -> Facts:
        p99_s = counts.durations.quantile(0.99)
        return {
            "generation": number,
            "requests": counts.durations.count,
            "errors": counts.errors,
            "p99_s": round(p99_s, 6) if p99_s is not None else None,
            "backend_memory_bytes": self._memory.get(number),
        }

    def _generations(self) -> dict[tuple[str, int], GenerationCounts]:
        known = self._context.measured.tallies.generations
        return {key: counts for key, counts in known.items() if key[0] == self._pool.name}

    def _waits(self) -> int:
        waits = self._context.measured.tallies.waits.get(self._pool.name)
        return waits.count if waits is not None else 0

    def _closed(self) -> dict[str, int]:
        by_code: dict[str, int] = {}
        for (pool, code, *_), number in self._context.measured.tallies.incidents.get(_CLOSE, {}).items():
            if pool == self._pool.name:
                by_code[code] = by_code.get(code, 0) + number
        return by_code
