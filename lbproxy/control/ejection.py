"""Passive ejection: backends that clients' work keeps failing on get no new work for a while (pool.X.health.passive).

Workers say how many errors they saw; control decides for all of them, so that the floor holds for the pool as a whole.
An ejected backend stays in the table, at rest: the work that it has in hand goes on.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from lbproxy.link.codec import LinkBroken
from lbproxy.link.messages import BackendErrors
from lbproxy.model import BackendId
from lbproxy.policy.ejection import Errors, left_out, most
from lbproxy.settings import PassiveSettings
from lbproxy.telemetry.events import BackendUnhealthy, Event, Notice
from lbproxy.telemetry.text import seconds

_OVER = "its ejection is over"
_FLOOR = "it is needed: too few others are ready"


@dataclass(frozen=True, slots=True)
class Ejection:
    """`until`: on Trio's clock."""

    why: str
    until: float

    def why_now(self, now: float) -> str:
        return f"{self.why}; back in {seconds(max(0.0, self.until - now))}"


class Ejections:
    """The errors and ejections of one pool. `fit`: its ready backends, with those that are ejected. Knows no clock."""

    def __init__(self) -> None:
        self._errors: dict[BackendId, Errors] = {}
        self._out: dict[BackendId, Ejection] = {}  # in the order of their ejection
        self._spared: dict[BackendId, float] = {}  # until when it is not said again

    @property
    def is_empty(self) -> bool:
        return not self._out and not self._errors

    def find(self, id: BackendId) -> Ejection | None:
        return self._out.get(id)

    @property
    def next_end(self) -> float:
        """When the first ejection is over."""
        return min((one.until for one in self._out.values()), default=float("inf"))

    def note(
        self, id: BackendId, errors: tuple[int, str], passive: PassiveSettings, fit: Collection[BackendId], now: float
    ) -> Ejection | str | None:
        """Count errors: their number, and what the last one was. An Ejection, if they are too many; a sentence, if they
        are and the backend has to stay all the same."""
        number, last = errors
        if id not in fit or id in self._out:
            return None
        seen = self._errors.get(id, Errors()).after(number, now=now, within_s=passive.within_s)
        self._errors[id] = seen
        if seen.count < passive.errors:
            return None
        why = f"{seen.count} errors in {passive.within_s:g}s (the last: {last})"
        if len(self._out) >= most(len(fit), passive.at_most_percent):
            if now < self._spared.get(id, 0.0):
                return None
            self._spared[id] = now + passive.eject_s
            return f"{id} has {why}, and stays: no more than {passive.at_most_percent}% of the pool may be ejected"
        del self._errors[id]
        self._out[id] = Ejection(f"ejected: {why}", now + passive.eject_s)
        return self._out[id]

    def settle(
        self, passive: PassiveSettings | None, fit: Collection[BackendId], now: float
    ) -> list[tuple[BackendId, str]]:
        """End what is over. Returns the backends that are back, and why. Nothing is kept of one that is not ready any
        more: events of its own tell."""
        before = [id for id in self._out if id in fit]
        due = [id for id in before if passive is None or now >= self._out[id].until]
        stay: tuple[BackendId, ...] = ()
        if passive is not None:
            stay = left_out([id for id in before if id not in due], fit, passive.at_most_percent)
        self._out = {id: self._out[id] for id in stay}
        self._errors = {id: errors for id, errors in self._errors.items() if id in fit and passive is not None}
        self._spared = {id: until for id, until in self._spared.items() if now < until}
        return [(id, _OVER if id in due else _FLOOR) for id in before if id not in stay]


class FleetLike(Protocol):
    def note_errors(self, id: BackendId, errors: tuple[int, str]) -> Ejection | str | None: ...
    def settle_ejections(self) -> float: ...
    def touch(self) -> None: ...


class WorkersLike(Protocol):
    hearers: dict[type, Callable[[int, Any], None]]


class Ejector:
    """Takes what workers say, and brings back in time."""

    def __init__(self, fleet: FleetLike, workers: WorkersLike, emit: Callable[[Event], None]) -> None:
        workers.hearers[BackendErrors] = self._take
        self._fleet = fleet
        self._emit = emit
        self._changed = trio.Event()

    def _take(self, worker: int, message: BackendErrors) -> None:
        """Raises LinkBroken."""
        del worker
        try:
            id = BackendId.parse(message.backend)
        except ValueError as exc:
            raise LinkBroken(f"{message.backend!r} is no backend") from exc
        verdict = self._fleet.note_errors(id, (message.number, message.last))
        if isinstance(verdict, Ejection):
            back_in_s = round(verdict.until - trio.current_time(), 3)
            self._emit(BackendUnhealthy(id.pool, str(id), verdict.why, back_in_s))
            self._fleet.touch()
            self._changed.set()
        elif verdict is not None:
            self._emit(Notice(verdict))

    async def run(self) -> None:
        """Bring back each ejected backend when its time is over."""
        while True:
            next_end = self._fleet.settle_ejections()
            with trio.move_on_at(next_end):
                await self._changed.wait()
                self._changed = trio.Event()
                continue
            self._fleet.touch()
