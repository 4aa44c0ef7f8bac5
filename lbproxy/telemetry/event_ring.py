"""The recent events, numbered, for those who ask later or read on from where they were.

A reader pulls: it asks for the events after the last one it has, then waits for a newer one. So a slow reader costs no
memory, and what it missed shows in the numbers. Knows neither HTTP nor what the events mean.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import trio

from lbproxy.telemetry.events import Event

RING_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class Numbered:
    id: int
    at: float  # seconds of the epoch
    event: Event


class EventRing:
    """`first_id` is the time of the start in milliseconds, so ids also grow from one run of lbproxy to the next."""

    def __init__(self, size: int = RING_EVENTS, now: Callable[[], float] = time.time) -> None:
        self.first_id = int(now() * 1000)
        self.newest_id = self.first_id - 1
        self.has_ended = False
        self._events: deque[Numbered] = deque(maxlen=size)
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def oldest_id(self) -> int:
        """Of the events that are still there."""
        return self.newest_id - len(self._events) + 1

    def add(self, event: Event, at: float) -> None:
        self.newest_id += 1
        self._events.append(Numbered(self.newest_id, at, event))
        self._changed.unpark_all()

    def restore(self, first_id: int, events: Sequence[tuple[float, Event]], newest_id: int) -> None:
        """Go on behind the ring of an earlier program, with its numbers: readers go on where they were. `events`: its
        newest ones, up to `newest_id`."""
        own = list(self._events)
        self._events.clear()
        self.first_id, self.newest_id = first_id, newest_id - len(events)
        for at, event in (*events, *((one.at, one.event) for one in own)):
            self.add(event, at)

    def after(self, id: int, most: int = RING_EVENTS) -> list[Numbered]:
        """The oldest `most` events with a greater id."""
        start = max(0, id + 1 - self.oldest_id)
        return list(islice(self._events, start, start + most))

    def newest_first(self) -> Iterator[Numbered]:
        return reversed(self._events)

    def lost_after(self, id: int) -> int:
        """How many events of this run with a greater id are gone."""
        return max(0, self.oldest_id - max(id + 1, self.first_id))

    def last(self, count: int) -> int:
        """The id behind which the newest `count` events are."""
        return max(self.newest_id - count, self.oldest_id - 1)

    def since(self, at: float) -> int:
        """The id behind which the events from the time `at` on are."""
        newer = 0
        for numbered in reversed(self._events):
            if numbered.at < at:
                break
            newer += 1
        return self.newest_id - newer

    def end(self) -> bool:
        """lbproxy ends: readers get what is there, and no more comes. Returns whether one waits."""
        self.has_ended = True
        return bool(self._changed.unpark_all())

    async def wait_newer(self, id: int) -> None:
        """Wait for an event with a greater id, or for the end."""
        while self.newest_id <= id and not self.has_ended:
            await self._changed.park()
