"""The log: events go in, lines and subscriptions come out.

`emit` may be called from anywhere in the process's Trio thread (or before Trio runs): it never blocks, never raises
and is no checkpoint. Knows nothing of what the events mean; text.py turns them into words.
"""

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

import trio

from lbproxy.telemetry.event_ring import EventRing
from lbproxy.telemetry.events import BackendOutput, Event, LogDropped
from lbproxy.telemetry.sink import Sink
from lbproxy.telemetry.text import LEVELS, event_json, json_line, text_line

__all__ = ["Log", "Subscription", "event_json"]

SUBSCRIPTION_EVENTS = 1000


class Subscription:
    """Events as they happen: `with log.subscribe() as events: async for event in events: ...`

    Bounded: a slow reader misses events and gets a LogDropped with their number instead. Events of a reload are never
    missed: they are few, and a command waits for their verdict.
    """

    def __init__(self, wants: Callable[[Event], bool], forget: "Callable[[Subscription], None]") -> None:
        self._wants = wants
        self._forget = forget
        self._events: deque[tuple[Event, float]] = deque()
        self.at = time.time()  # when the event that was given out last happened: the time that the log has, too
        self._lost = 0
        self._closed = False
        self._arrived = trio.lowlevel.ParkingLot()

    @property
    def waiting(self) -> int:
        """How many events are not read yet."""
        return len(self._events)

    def offer(self, event: Event, at: float) -> None:
        if not self._wants(event):
            return
        if len(self._events) >= SUBSCRIPTION_EVENTS and not _belongs_to_reload(event):
            self._lost += 1
            return
        self._events.append((event, at))
        self._arrived.unpark_all()

    def close(self) -> None:
        """End the stream of events. The queued ones can still be read."""
        if not self._closed:
            self._closed = True
            self._forget(self)
        self._arrived.unpark_all()

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._lost:
                lost, self._lost = self._lost, 0
                return LogDropped(lost)
            if self._closed:
                raise StopAsyncIteration
            await self._arrived.park()
        event, self.at = self._events.popleft()
        return event


class Log:
    """`level`: debug | info | warning | error; `format`: auto (text on a terminal, json otherwise) | text | json.

    `ring` keeps the recent events of every level, but for backends' output: `lbproxy logs` has that, and it would
    push everything else out.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        level: str,
        format: str,
        now: Callable[[], float] = time.time,
        ring: EventRing | None = None,
    ) -> None:
        if format == "auto":
            format = "text" if sink.is_terminal else "json"
        self.level = level
        self.format = format
        self._line = text_line if format == "text" else json_line
        self._least = LEVELS[level]
        self._sink = sink
        self._now = now
        self._ring = ring
        self._subscriptions: list[Subscription] = []
        self._observers: list[Callable[[Event], None]] = []
        sink.describe_losses(lambda lines: self._line(LogDropped(lines), self._now()))

    def emit(self, event: Event) -> None:
        for observe in self._observers:
            observe(event)
        now = getattr(event, "at", None) or self._now()
        for subscription in self._subscriptions:
            subscription.offer(event, now)
        if self._ring is not None and not isinstance(event, BackendOutput):
            self._ring.add(event, now)
        if LEVELS[event.level] < self._least:
            return
        try:
            line = self._line(event, now)
        except Exception as exc:  # a log line is never worth a crash
            line = f"{event.name}: no line could be made of it: {exc!r}\n".encode("ascii", "backslashreplace")
        self._sink.write(line)

    def set_level(self, level: str) -> None:
        self.level = level
        self._least = LEVELS[level]

    def subscribe(self, wants: Callable[[Event], bool] = lambda event: True) -> Subscription:
        """Subscribe to the events of every level for which `wants` is true."""
        subscription = Subscription(wants, self._subscriptions.remove)
        self._subscriptions.append(subscription)
        return subscription

    def observe(self, observe: Callable[[Event], None]) -> None:
        """Call `observe` for every event of every level, before `emit` returns. It must not raise, block or emit."""
        self._observers.append(observe)

    def reopen(self) -> None:
        """See Sink.reopen. Raises OSError."""
        self._sink.reopen()

    @property
    def is_written(self) -> bool:
        """Whether no line waits for the sink's thread."""
        return self._sink.backlog_bytes == 0

    def close(self, timeout_s: float) -> None:
        """End every subscription, then write the queued lines, for at most `timeout_s`."""
        for subscription in list(self._subscriptions):
            subscription.close()
        self._sink.close(timeout_s)


def _belongs_to_reload(event: Event) -> bool:
    return getattr(event, "reload", None) is not None
