"""CPU and memory of backends and workers, looked up every few seconds in a thread, so that nobody who asks waits.

Knows owners (any label) and the pids that belong to them. An owner's CPU time never goes back, whichever of its
processes ends.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping

import trio

from lbproxy.supervise.usage import NOTHING, Usage, read_usage

EVERY_S = 5.0


class UsageBook:
    def __init__(self, read: Callable[[Collection[int]], Mapping[int, Usage]] = read_usage) -> None:
        self._read = read
        self._cpu_s: dict[Hashable, float] = {}
        self._resident_bytes: dict[Hashable, int] = {}
        self._seen: dict[int, Usage] = {}
        self._cpu_share: dict[int, float] = {}
        self._read_at: float | None = None
        self._looked = trio.Event()

    async def run(self, owners: Callable[[], Iterable[tuple[Hashable, int]]]) -> None:
        """`owners`: every owner with the pid of its process; an owner may have several."""
        while True:
            pids = list(owners())
            self.take(pids, await trio.to_thread.run_sync(self._read, {pid for _, pid in pids}))
            await trio.sleep(EVERY_S)

    def take(self, owners: Iterable[tuple[Hashable, int]], usages: Mapping[int, Usage]) -> None:
        now = trio.current_time()
        since_s = now - self._read_at if self._read_at is not None else 0.0
        self._read_at = now
        self._resident_bytes.clear()
        self._cpu_share.clear()
        for owner, pid in owners:
            usage = usages.get(pid)
            if usage is None:
                continue
            used_s = max(0.0, usage.cpu_s - self._seen.get(pid, NOTHING).cpu_s)
            self._cpu_s[owner] = self._cpu_s.get(owner, 0.0) + used_s
            self._resident_bytes[owner] = self._resident_bytes.get(owner, 0) + usage.resident_bytes
            if since_s and pid in self._seen:
                self._cpu_share[pid] = used_s / since_s
        self._seen = dict(usages)
        self._looked.set()
        self._looked = trio.Event()

    async def wait_look(self) -> None:
        """Returns after the next look."""
        await self._looked.wait()

    def hand_on(self) -> dict[Hashable, float]:
        """CPU time by owner, and by pid that of the processes that were seen last."""
        return {**self._cpu_s, **{pid: usage.cpu_s for pid, usage in self._seen.items()}}

    def take_over(self, cpu_s: Mapping[Hashable, float]) -> None:
        """What those processes have used by now counts already."""
        for key, used_s in cpu_s.items():
            if isinstance(key, int):
                self._seen[key] = Usage(used_s, 0)
            else:
                self._cpu_s[key] = used_s

    def cpu_s(self, owner: Hashable) -> float:
        return self._cpu_s.get(owner, 0.0)

    def resident_bytes(self, owner: Hashable) -> int:
        return self._resident_bytes.get(owner, 0)

    def cpu_share(self, pid: int | None) -> float | None:
        """The share of one CPU that a process used between the last two looks; None: there were not two yet."""
        return None if pid is None else self._cpu_share.get(pid)

    def resident_bytes_of(self, pid: int | None) -> int | None:
        return self._seen[pid].resident_bytes if pid is not None and pid in self._seen else None
