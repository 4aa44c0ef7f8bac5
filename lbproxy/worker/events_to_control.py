"""A worker's events, sent over the link: control writes them to the one log, and passes them on to subscribers.

Bounded: while control does not read, events are dropped and counted.
"""

from lbproxy.link.channel import Channel
from lbproxy.link.messages import WorkerEvent
from lbproxy.telemetry.events import Event, LogDropped

MOST_WAITING = 1000  # messages in the link's outbox, beyond which no event is added


class EventsToControl:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._dropped = 0

    def emit(self, event: Event) -> None:
        if self._channel.waiting >= MOST_WAITING:
            self._dropped += 1
            return
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._channel.post(LogDropped(dropped))
        assert isinstance(event, WorkerEvent)
        self._channel.post(event)
