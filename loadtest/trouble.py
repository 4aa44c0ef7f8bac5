"""The trouble that the storm and the soak make for lbproxy: reloads, and kill -9 of backends and workers."""

import contextlib
import os
import signal
from collections import deque
from dataclasses import dataclass, field

import trio

import rig
from rig import Serving

SETTLED_S = 0.2
# A slot that is killed 5 times within 60 s is given up, and rightly so (restart.give_up): no slot is killed more often.
MOST_KILLS, WITHIN_S = 3, 60.0


@dataclass(slots=True)
class Reloads:
    """Reloads, one after the other, and the counts that the clients' records are compared with."""

    lb: Serving
    report: rig.Report
    results: tuple[str, ...] = ("ok",)  # the expected ones
    number: int = 0  # the number of the present reload, or of the last one
    closed: int = 0  # WebSockets that lbproxy says it closed
    took_s: list[float] = field(default_factory=list)

    async def run(self, count: int) -> None:
        for _ in range(count):
            await self.once()
            await trio.sleep(SETTLED_S)

    async def once(self) -> None:
        self.number += 1
        done = await rig.reload(self.lb)
        self.took_s.append(done.took_s)
        self.closed += done.verdict.get("websockets_closed", 0)
        right = done.verdict.get("result") in self.results and (self.results != ("ok",) or done.ok)
        self.report.promise(right, f"reload {self.number}: {done.exit_code}: {done.text[-600:]}")

    def tell(self) -> None:
        if self.took_s:
            span = f"{min(self.took_s):.1f} to {max(self.took_s):.1f} s each"
            self.report.line("reloads", f"{len(self.took_s)}, {span}, {self.closed} WebSockets closed")


@dataclass(slots=True)
class Kills:
    """Kills (-9) of a backend and a worker in turn, about one in two seconds at most."""

    lb: Serving
    when: list[float] = field(default_factory=list)
    _by_slot: dict[str, deque[float]] = field(default_factory=dict)

    async def run(self, count: int) -> None:
        for number in range(count):
            status = await trio.to_thread.run_sync(self.lb.status)
            pid = self._worker(status) if number % 2 else self._backend(status) or self._worker(status)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    self.when.append(trio.current_time())
                    os.kill(pid, signal.SIGKILL)
            await trio.sleep(2.0)

    def _worker(self, status: dict) -> int | None:
        """The workers, each in its turn."""
        pids = sorted((one["id"], one["pid"]) for one in status["workers"] if one["state"] == "serving")
        return pids[len(self.when) // 2 % len(pids)][1] if pids else None

    def _backend(self, status: dict) -> int | None:
        """The pid of the slot that was killed least often; None if no slot may be killed again yet."""
        now = trio.current_time()
        ready = [one for one in status["pools"]["web"]["backends"] if one["state"] == "ready"]
        for kills in self._by_slot.values():
            while kills and now - kills[0] > WITHIN_S:
                kills.popleft()
        victim = min(ready, key=lambda one: len(self._by_slot.get(one["id"], ())), default=None)
        if victim is None:
            return None
        kills = self._by_slot.setdefault(victim["id"], deque())
        if len(kills) >= MOST_KILLS:
            return None
        kills.append(now)
        return int(victim["pid"])

    def since(self, ended: float) -> float:
        """Seconds from the last kill before `ended`."""
        return min((ended - at for at in self.when if at <= ended), default=float("inf"))
