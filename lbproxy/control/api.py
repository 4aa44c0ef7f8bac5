"""The content of the control API (CONTRACT.md 3): routes and answers. api_server.py speaks HTTP.

Calls the parts of control and changes nothing itself.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lbproxy.config.problems import ConfigInvalid
from lbproxy.control import status
from lbproxy.control.api_server import Answer, Declined, Question
from lbproxy.control.logs import log_lines
from lbproxy.control.reload import ControlContext
from lbproxy.control.reloader import ReloadBusy, Reloader, ReloadRequest, UnknownPool
from lbproxy.link.grid import Grid
from lbproxy.supervise.output import OutputBook
from lbproxy.telemetry.events import Event, ReloadFinished
from lbproxy.telemetry.log import Log, Subscription
from lbproxy.telemetry.text import event_json

BUSY, USAGE, INVALID = 8, 2, 78
_LATER = (
    "/metrics",
    "/v1/abort",
    "/v1/drain",
    "/v1/events",
    "/v1/history",
    "/v1/restart",
    "/v1/rollback",
    "/v1/scale",
    "/v1/undrain",
)


@dataclass(frozen=True, slots=True)
class Api:
    context: ControlContext
    grid: Grid
    log: Log
    outputs: OutputBook
    reloader: Reloader
    stop: Callable[[bool], None]  # True: now
    started: float  # Trio's clock when control began

    async def answer(self, question: Question) -> Answer:
        """Raises Declined."""
        routes: dict[str, tuple[str, Callable[[Question], Awaitable[Answer]]]] = {
            "/v1/status": ("GET", self._status),
            "/v1/logs": ("GET", self._logs),
            "/v1/reload": ("POST", self._reload),
            "/v1/stop": ("POST", self._stop),
            "/livez": ("GET", self._livez),
            "/readyz": ("GET", self._readyz),
        }
        if question.path in _LATER:
            raise Declined(501, f"{question.path} is not supported yet")
        if question.path not in routes:
            raise Declined(404, f"there is no {question.path}")
        method, answer = routes[question.path]
        if question.method != method:
            raise Declined(405, f"{question.path} answers {method}")
        return await answer(question)

    async def _status(self, question: Question) -> Answer:
        workers = await self.context.workers.stats()
        return Answer(status.document(self.context, self.grid, workers, self.started))

    async def _livez(self, question: Question) -> Answer:
        return Answer({"live": True})

    async def _readyz(self, question: Question) -> Answer:
        ready = status.is_ready(self.context)
        return Answer({"ready": ready}, 200 if ready else 503)

    async def _stop(self, question: Question) -> Answer:
        self.stop(flag(question.values, "now"))
        return Answer({"pid": os.getpid()})

    async def _logs(self, question: Question) -> Answer:
        return Answer(lines=log_lines(question.query, self.outputs, self.context))

    async def _reload(self, question: Question) -> Answer:
        request = ReloadRequest("command", pool_names(question.values), flag(question.values, "config_only"))
        events = self.log.subscribe(lambda event: reload_of(event) is not None)
        try:
            id = await self.reloader.start(request)
        except BaseException as exc:
            events.close()
            if isinstance(exc, ReloadBusy):
                raise Declined(409, str(exc), BUSY) from None
            if isinstance(exc, UnknownPool):
                raise Declined(404, str(exc), USAGE) from None
            if isinstance(exc, ConfigInvalid):
                raise Declined(422, exc.text, INVALID) from None
            raise
        return Answer(lines=_events_of(events, id), on_end=events.close)


async def _events_of(events: Subscription, id: str) -> AsyncGenerator[Mapping[str, Any], None]:
    """The events of one reload, until it has ended."""
    async for event in events:
        if reload_of(event) == id:
            yield event_json(event, events.at)
            if isinstance(event, ReloadFinished):
                return


def reload_of(event: Event) -> str | None:
    return getattr(event, "reload", None)


def flag(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise Declined(400, f"{name}: expected true or false", USAGE)
    return value


def pool_names(values: Mapping[str, Any]) -> tuple[str, ...]:
    names = values.get("pools", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Declined(400, "pools: expected a list of names", USAGE)
    return tuple(dict.fromkeys(names))
