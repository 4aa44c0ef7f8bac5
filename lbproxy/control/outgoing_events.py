"""The events that leave the process, as [events] says: which sinks there are, and their tasks.

A reload changes the sinks. One whose settings stay keeps its queue.
"""

from collections.abc import Awaitable, Callable

import trio

from lbproxy.control.event_sink import Delivery, EventSink
from lbproxy.control.redis_publisher import RedisPublisher
from lbproxy.control.webhook import Webhook
from lbproxy.settings import EventsSettings, RedisSettings, WebhookSettings
from lbproxy.telemetry.events import Notice
from lbproxy.telemetry.log import Log, Subscription

LEAVE_S = 20.0  # for what is queued when a reload changes or removes a sink

AnySettings = WebhookSettings | RedisSettings
Deliver = Callable[[Delivery], Awaitable[None]]


class OutgoingEvents:
    def __init__(self, log: Log) -> None:
        self._log = log
        self._running: dict[AnySettings, _Running] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, settings: EventsSettings, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self._nursery:
            self.apply(settings)
            task_status.started()
            await trio.sleep_forever()

    def apply(self, settings: EventsSettings) -> None:
        wanted = [one for one in (settings.webhook, settings.redis) if one is not None]
        for gone in [one for one in self._running if one not in wanted]:
            self._running.pop(gone).leave()
        for one in wanted:
            if one not in self._running:
                self._start(one)

    async def wait_done(self) -> None:
        """Until no event is queued or on its way."""
        for running in self._running.values():
            await running.sink.wait_done()

    def _start(self, settings: AnySettings) -> None:
        assert self._nursery is not None
        name = "the webhook" if isinstance(settings, WebhookSettings) else "redis"
        try:
            deliver = _deliverer(settings)
        except (ImportError, ValueError):
            self._log.emit(Notice(f"events: {name} cannot be used: its library does not take its settings"))
            return
        sink = EventSink(name, settings.events, deliver, self._log.emit)
        running = self._running[settings] = _Running(sink, self._log.subscribe(sink.wants))
        self._nursery.start_soon(running.run)


class _Running:
    """A sink at work, until it is told to leave: then it delivers what it has, and ends."""

    def __init__(self, sink: EventSink, events: Subscription) -> None:
        self.sink = sink
        self._events = events

    def leave(self) -> None:
        self._events.close()

    async def run(self) -> None:
        with self._events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.sink.run)
                async for event in self._events:
                    self.sink.offer(event)
                with trio.move_on_after(LEAVE_S):
                    await self.sink.wait_done()
                nursery.cancel_scope.cancel()


def _deliverer(settings: AnySettings) -> Deliver:
    if isinstance(settings, WebhookSettings):
        return Webhook(settings.url.value, settings.secret).deliver
    return RedisPublisher(settings.url.value, settings.channel).deliver
