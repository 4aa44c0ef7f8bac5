"""The record of every change of the pools (CONTRACT.md 3), made from its events; the last 1,000 outlive lbproxy."""

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from lbproxy.telemetry import events as e
from lbproxy.telemetry.text import iso_time

MOST_RECORDS = 1000
_AS_FAR_AS_THEY_APPLY = (
    "same_as",
    "backend",
    "size",
    "held",
    "longest_hold_s",
    "websocket_closes",
    "peak_memory_bytes",
)
Record = dict[str, Any]

# What readers of a record rely on. Later versions only add keys.
_NEEDED: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("verb", "id", "pool", "result", "started_at"), str),
    **dict.fromkeys(("from_generation", "generation", "requests", "failed", "cut"), int),
    "duration_s": (int, float),
    "asked_by": dict,
}


class History:
    """`on_record` is called with each new record."""

    def __init__(self, on_record: Callable[[Record], None]) -> None:
        self.records: deque[Record] = deque(maxlen=MOST_RECORDS)  # the oldest first
        self._on_record = on_record
        self._running: dict[str, _Running] = {}  # by the reload's id
        self._changed = trio.Event()

    def restore(self, records: list[Record]) -> None:
        """What an earlier lbproxy has recorded. Raises TypeError."""
        for record in records:
            if not isinstance(record, dict) or not all(isinstance(record.get(k), kind) for k, kind in _NEEDED.items()):
                raise TypeError(f"not a record: {record!r:.80}")
        self.records = deque([*records, *self.records], maxlen=MOST_RECORDS)

    def of(self, pool: str | None, count: int) -> list[Record]:
        """The last `count` records, of one pool or of all."""
        found = [record for record in self.records if pool is None or record["pool"] == pool]
        return found[-count:] if count else []

    async def record_of(self, id: str, pool: str) -> Record:
        """The record of this pool in this change, once it is over; waits until it is there."""
        while True:
            for record in reversed(self.records):
                if (record["id"], record["pool"]) == (id, pool) and record["result"] != "paused":
                    return record
            await self._changed.wait()

    def observe(self, event: e.Event, at: float) -> None:
        """`at`: seconds of the epoch."""
        id = getattr(event, "reload", None)
        if id is None:
            return
        match event:
            case e.ReloadStarted():
                self._running.setdefault(id, _Running(event, at))
            case e.BackendReady(pool, backend, after_s):
                self._note(id, pool, backend, ready_after_s=after_s)
            case e.BackendProved(pool, backend, after_s):
                self._note(id, pool, backend, proved_after_s=after_s)
            case e.BackendDrained(pool, backend, after_s, cut):
                self._note(id, pool, backend, drained_after_s=after_s, cut=cut)
            case e.ReloadDone():
                self._finish(event, at)
            case e.ReloadFinished():
                if event.exit_code != 9:  # of a reload that stands half-way the end comes later
                    self._running.pop(id, None)

    def _note(self, id: str, pool: str, backend: str, **facts: float) -> None:
        running = self._running.get(id)
        if running is not None:
            name, _, generation = backend.rpartition("@")
            known = running.backends.setdefault(pool, {})
            known.setdefault(backend, {"slot": int(name.rpartition(".")[2]), "generation": int(generation)}).update(
                facts
            )

    def _finish(self, done: e.ReloadDone, at: float) -> None:
        running = self._running.get(done.reload)
        record: Record = {
            "verb": done.verb,
            "id": done.reload,
            "pool": done.pool,
            "result": done.result,
            "started_at": iso_time(at - done.duration_s),
            "duration_s": done.duration_s,
            "asked_by": running.asked_by if running is not None else {},
            "from_generation": done.from_generation,
            "generation": done.generation,
            "why": done.why,
            "backends": list(running.backends.get(done.pool, {}).values()) if running is not None else [],
            "requests": done.requests,
            "failed": done.failed,
            "cut": done.cut,
            "websockets_closed": done.websockets_closed,
            "output": list(done.output),
            "compared": list(done.compared),
        }
        for name in _AS_FAR_AS_THEY_APPLY:
            if (value := getattr(done, name)) is not None:
                record[name] = value
        self.records.append(record)
        self._changed.set()
        self._changed = trio.Event()
        self._on_record(record)


class _Running:
    def __init__(self, started: e.ReloadStarted, at: float) -> None:
        self.at = at
        self.asked_by = started.asked_by or {"how": started.trigger}
        self.backends: dict[str, dict[str, dict[str, Any]]] = {}  # by pool, by name
