"""One place outside that events go to: a bounded queue, and the task that delivers from it in order.

Knows patterns, tries and time. Nobody waits for it: when it is behind, the oldest events are dropped and counted. Knows
neither HTTP nor Redis.
"""

import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count

import trio

from lbproxy.errors import LbproxyError
from lbproxy.telemetry.events import BackendOutput, Event, Notice
from lbproxy.telemetry.text import event_json

QUEUE_EVENTS = 1000
TRIES = 3
TRY_S = 5.0
PAUSE_S = 1.0  # between two tries


class NotDelivered(LbproxyError):
    """One try failed, for the reason in words, which hold neither URL nor secret."""


@dataclass(frozen=True, slots=True)
class Delivery:
    id: str
    name: str
    body: bytes  # JSON


class EventSink:
    """`name` is what notices call it. `patterns` as in "reload.*"; backends' output only where it is named."""

    def __init__(
        self,
        name: str,
        patterns: tuple[str, ...],
        deliver: Callable[[Delivery], Awaitable[None]],
        emit: Callable[[Event], None],
    ) -> None:
        self._name = name
        self._patterns = patterns
        self._deliver = deliver
        self._emit = emit
        self._queue: deque[Delivery] = deque()
        self._queued = trio.Event()
        self._done = trio.Event()  # nothing is queued, and nothing on its way
        self._ids: Iterator[str] = map(f"{int(time.time() * 1000)}-{{}}".format, count(1))
        self._lost = 0  # since the last notice
        self._failing = False

    def wants(self, event: Event) -> bool:
        if isinstance(event, BackendOutput):
            return event.name in self._patterns
        return any(fnmatchcase(event.name, pattern) for pattern in self._patterns)

    def offer(self, event: Event) -> None:
        if not self.wants(event):
            return
        values = {**event_json(event), "level": event.level}
        self._queue.append(Delivery(next(self._ids), event.name, json.dumps(values, separators=(",", ":")).encode()))
        if len(self._queue) > QUEUE_EVENTS:
            self._queue.popleft()
            self._lost += 1
        self._queued.set()

    async def run(self) -> None:
        while True:
            while self._queue:
                if not await self._try(self._queue.popleft()):
                    self._lost += 1
            self._queued = trio.Event()
            self._done.set()
            await self._queued.wait()
            self._done = trio.Event()

    async def wait_done(self) -> None:
        while self._queue or not self._done.is_set():
            await self._done.wait()

    async def _try(self, event: Delivery) -> bool:
        why = ""
        for number in range(TRIES):
            if number:
                await trio.sleep(PAUSE_S)
            try:
                with trio.fail_after(TRY_S):
                    await self._deliver(event)
            except NotDelivered as exc:
                why = str(exc)
            except trio.TooSlowError:
                why = f"no answer within {TRY_S:g}s"
            except Exception as exc:  # a mistake of ours must not end control; its words may hold the URL
                why = f"a mistake of lbproxy's own: {type(exc).__name__}"
            else:
                self._say_well()
                return True
        self._say_failing(why)
        return False

    def _say_failing(self, why: str) -> None:
        """Once, until it works again: the notice may be an event that is to be delivered, too."""
        if not self._failing:
            self._failing = True
            self._emit(Notice(f"events: {self._name} does not take events: {why} ({TRIES} tries)"))

    def _say_well(self) -> None:
        """The end of an outage; else, when nothing is queued any more, how many events found no room."""
        if not self._failing and (not self._lost or self._queue):
            return
        lost, self._lost = self._lost, 0
        self._failing = False
        self._emit(Notice(f"events: {self._name} takes events again, {lost} were lost"))
