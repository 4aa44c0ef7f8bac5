"""The answer to an upgrade: its events as JSON lines, which the program before begins and the one after ends.

Knows the events of one upgrade. Whether every line is sent decides whether the connection can be handed on.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from lbproxy.telemetry import events as e
from lbproxy.telemetry.log import Log, Subscription
from lbproxy.telemetry.text import event_json

_BESIDE = (e.WorkerStarted, e.WorkerExited, e.WorkerHung)  # what happens meanwhile


class UpgradeStream:
    def __init__(self, log: Log, id: str, client_fd: int) -> None:
        """`client_fd`: the connection of its command, that another program could go on with; -1: there is none."""
        self._id = id
        self._client_fd = client_fd
        self._events: Subscription = log.subscribe(self._wants)
        self._is_sending = False
        self._is_open = True

    @property
    def is_idle(self) -> bool:
        """Every line so far is sent, or nobody reads."""
        return not self._is_open or not (self._is_sending or self._events.waiting)

    @property
    def client_fd(self) -> int:
        """-1 also when the command has gone, and when it does not take its lines."""
        return self._client_fd if self._is_open and self.is_idle else -1

    async def lines(self) -> AsyncGenerator[Mapping[str, Any], None]:
        async for event in self._events:
            self._is_sending = True
            yield event_json(event, self._events.at)
            self._is_sending = False  # asked for the next line: this one is sent
            if isinstance(event, e.UpgradeDone):
                return

    def close(self) -> None:
        self._is_open = False
        self._events.close()

    def _wants(self, event: e.Event) -> bool:
        if isinstance(event, e.Notice):
            return event.reload == self._id
        return getattr(event, "upgrade", None) == self._id or isinstance(event, _BESIDE)
