"""The content of the control API (CONTRACT.md 3): routes and answers. api_server.py speaks HTTP.

Calls the parts of control and changes nothing itself.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lbproxy.config.problems import ConfigInvalid
from lbproxy.config.units import positive_duration
from lbproxy.control import scrape, status
from lbproxy.control.api_server import Answer, Declined, Question
from lbproxy.control.audit import Audit
from lbproxy.control.connections import OpenConnections
from lbproxy.control.context import ControlContext
from lbproxy.control.drains import Drains
from lbproxy.control.event_stream import EventStreams
from lbproxy.control.failures import FailedExchanges
from lbproxy.control.forecast import Forecast, measure
from lbproxy.control.generations import UnknownGeneration
from lbproxy.control.history import History
from lbproxy.control.logs import Followers, is_following, log_lines
from lbproxy.control.pauses import pause, unpause
from lbproxy.control.plan import (
    CannotDo,
    ReloadRequest,
    Request,
    RestartRequest,
    RollbackRequest,
    ScaleRequest,
    UnknownPool,
)
from lbproxy.control.reloader import ReloadBusy, Reloader
from lbproxy.control.upgrader import CannotUpgrade, Upgrader, Wish
from lbproxy.link.grid import Grid
from lbproxy.settings import LONGEST_PAGE_BYTES
from lbproxy.supervise.output import OutputBook
from lbproxy.telemetry.event_ring import EventRing
from lbproxy.telemetry.events import Event, ReloadFinished
from lbproxy.telemetry.log import Log, Subscription
from lbproxy.telemetry.metrics import render
from lbproxy.telemetry.text import event_json

BUSY, USAGE, INVALID = 8, 2, 78
_CHANGES_NOTHING = "/v1/plan"


@dataclass(frozen=True, slots=True)
class Api:
    context: ControlContext
    grid: Grid
    log: Log
    outputs: OutputBook
    reloader: Reloader
    drains: Drains
    stop: Callable[[bool], None]  # True: now
    started: float  # Trio's clock when control began
    connections: OpenConnections
    failures: FailedExchanges
    history: History
    audit: Audit
    events: EventStreams = field(default_factory=lambda: EventStreams(EventRing()))
    is_stopping: Callable[[], bool] = lambda: False
    followers: Followers = field(default_factory=Followers)
    upgrader: Upgrader | None = None

    async def answer(self, question: Question) -> Answer:
        """Raises Declined. What was to change something is written down, whatever became of it."""
        if question.method != "POST" or question.path == _CHANGES_NOTHING:
            return await self._route(question)
        verb = question.path.removeprefix("/v1/")
        try:
            answer = await self._route(question)
        except Declined as exc:
            self.audit.note(question.asked_by, verb, question.values, f"refused: {exc}")
            raise
        if answer.lines is None:  # else its verdict is written down, when it is there
            self.audit.note(question.asked_by, verb, question.values, "done")
        return answer

    async def _route(self, question: Question) -> Answer:
        routes: dict[str, tuple[str, Callable[[Question], Awaitable[Answer]]]] = {
            "/v1/status": ("GET", self._status),
            "/v1/logs": ("GET", self._logs),
            "/v1/events": ("GET", self._events),
            "/v1/reload": ("POST", self._reload),
            "/v1/plan": ("POST", self._plan),
            "/v1/rollback": ("POST", self._rollback),
            "/v1/scale": ("POST", self._scale),
            "/v1/restart": ("POST", self._restart),
            "/v1/drain": ("POST", self._drain),
            "/v1/undrain": ("POST", self._undrain),
            "/v1/pause": ("POST", self._pause),
            "/v1/unpause": ("POST", self._unpause),
            "/v1/abort": ("POST", self._abort),
            "/v1/resume": ("POST", self._resume),
            "/v1/stop": ("POST", self._stop),
            "/v1/upgrade": ("POST", self._upgrade),
            "/v1/connections": ("GET", self._connections),
            "/v1/close": ("POST", self._close),
            "/v1/why": ("GET", self._why),
            "/v1/history": ("GET", self._history),
            "/metrics": ("GET", self._metrics),
            "/livez": ("GET", self._livez),
            "/readyz": ("GET", self._readyz),
        }
        if question.path not in routes:
            raise Declined(404, f"there is no {question.path}")
        method, answer = routes[question.path]
        if question.method != method:
            raise Declined(405, f"{question.path} answers {method}")
        return await answer(question)

    async def _status(self, question: Question) -> Answer:
        workers = await self.context.workers.stats()
        return Answer(status.document(self.context, self.grid, workers, self.started))

    async def _history(self, question: Question) -> Answer:
        query = question.query
        pool = query.get("pool") or None
        if pool is not None and pool not in self.context.fleet.pools and not self.history.of(pool, 1):
            raise Declined(404, f"no pool '{pool}' (there is: {', '.join(self.context.fleet.pools)})", USAGE)
        if (count := natural(query.get("n", "20"))) is None:
            raise Declined(400, f"n: expected a whole number, got {query['n'][:20]!r}", USAGE)
        return Answer({"records": self.history.of(pool, count)})

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that fits the Accept field, and its content type. What workers have counted is at
        most a second old.
        """
        return render(scrape.samples(self.context, self.grid, self.context.workers.known()), accept)

    async def _metrics(self, question: Question) -> Answer:
        await self.context.workers.stats()  # then the last second is in it, too
        return Answer(text=self.metrics(question.accept))

    async def _livez(self, question: Question) -> Answer:
        return Answer({"live": True})

    async def _readyz(self, question: Question) -> Answer:
        pools = self.context.fleet.pools
        name = question.query.get("pool")
        if name is not None and name not in pools:
            raise Declined(404, f"no pool '{name}' (there is: {', '.join(pools)})", USAGE)
        asked = pools if name is None else [name]
        ready = not self.is_stopping() and all(status.is_ready(pools[pool]) for pool in asked)
        return Answer({"ready": ready}, 200 if ready else 503)

    async def _events(self, question: Question) -> Answer:
        return self.events.answer(question)

    async def _stop(self, question: Question) -> Answer:
        self.stop(flag(question.values, "now"))
        return Answer({"pid": os.getpid()})

    async def _upgrade(self, question: Question) -> Answer:
        timeout_s, tunnels_s = duration(question.values, "timeout"), duration(question.values, "tunnels")
        wish = Wish(timeout_s, tunnels_s or 0.0, dict(question.asked_by), question.client_fd)
        with declining():
            if self.upgrader is None:
                raise CannotDo("this lbproxy cannot replace itself")
            stream = self.upgrader.start(wish)
        return Answer(lines=stream.lines(), on_end=stream.close)

    async def _connections(self, question: Question) -> Answer:
        return Answer(await self.connections.page(question.query))

    async def _close(self, question: Question) -> Answer:
        return Answer(await self.connections.close(question.values.get("connection")))

    async def _why(self, question: Question) -> Answer:
        return Answer(await self.failures.why(question.query.get("request", "")))

    async def _logs(self, question: Question) -> Answer:
        lines = log_lines(question.query, self.outputs, self.context, self.followers.stopped)
        return Answer(lines=lines, on_end=self.followers.enter() if is_following(question.query) else None)

    # What changes the pools: the answer is a stream of the events that it causes, up to its verdict

    async def _reload(self, question: Question) -> Answer:
        return await self._start(question, reload_request(question.values))

    async def _plan(self, question: Question) -> Answer:
        with declining():
            plan, running = await self.reloader.preview(reload_request(question.values))
        measures = await measure(self.context)
        return Answer(Forecast(self.context, plan, self.history, measures).document(running))

    async def _rollback(self, question: Question) -> Answer:
        pool, to = text(question.values, "pool"), number(question.values, "to")
        if to is None and self.reloader.is_paused(pool):
            return await self._turn(question, self.reloader.abort, "turns around")
        return await self._start(question, RollbackRequest(pool, to))

    async def _scale(self, question: Question) -> Answer:
        size = number(question.values, "size")
        if size is None:
            raise Declined(400, "size: expected a whole number", USAGE)
        return await self._start(question, ScaleRequest(((text(question.values, "pool"), size),)))

    async def _restart(self, question: Question) -> Answer:
        return await self._start(question, RestartRequest(*backend_name(question.values)))

    async def _drain(self, question: Question) -> Answer:
        pool, slot = backend_name(question.values)
        force = flag(question.values, "force")
        return await self._steer(lambda: self.drains.drain(pool, slot, force=force, asked_by=dict(question.asked_by)))

    async def _undrain(self, question: Question) -> Answer:
        with declining():
            self.drains.undrain(*backend_name(question.values))
        return Answer({})

    async def _pause(self, question: Question) -> Answer:
        values = question.values
        page = values.get("message", "") if flag(values, "maintenance") else None
        if page is not None and not is_page(page):
            raise Declined(400, f"message: expected a text in UTF-8 of at most {LONGEST_PAGE_BYTES} bytes", USAGE)
        max_wait_s = duration(values, "max_wait")
        with declining():
            await pause(self.context, text(values, "pool"), max_wait_s=max_wait_s, page=page)
        return Answer({})

    async def _unpause(self, question: Question) -> Answer:
        with declining():
            await unpause(self.context, text(question.values, "pool"))
        return Answer({})

    async def _abort(self, question: Question) -> Answer:
        return await self._turn(question, self.reloader.abort, "turns around")

    async def _resume(self, question: Question) -> Answer:
        return await self._turn(question, self.reloader.resume, "goes on")

    async def _turn(self, question: Question, act: Callable[[str | None], str], what: str) -> Answer:
        """Steer the reload that runs. Its own verdict names who began it, so who steers it is written down here."""
        answer = await self._steer(lambda: act(text(question.values, "pool", None)))
        self.audit.note(question.asked_by, question.path.removeprefix("/v1/"), question.values, what)
        return answer

    async def _start(self, question: Question, request: Request) -> Answer:
        return await self._stream(lambda: self.reloader.start(request, dict(question.asked_by)))

    async def _steer(self, steer: Callable[[], str]) -> Answer:
        async def act() -> str:
            return steer()

        return await self._stream(act)

    async def _stream(self, act: Callable[[], Awaitable[str]]) -> Answer:
        """`act` returns the id of the reload whose events are the answer. Raises Declined."""
        events = self.log.subscribe(lambda event: reload_of(event) is not None)
        try:
            with declining():
                id = await act()
        except BaseException:
            events.close()
            raise
        return Answer(lines=_events_of(events, id), on_end=events.close)


@contextmanager
def declining() -> Iterator[None]:
    """What control refuses, as an answer with its exit code."""
    try:
        yield
    except ReloadBusy as exc:
        raise Declined(409, str(exc), BUSY) from None
    except UnknownPool as exc:
        raise Declined(404, str(exc), USAGE) from None
    except (UnknownGeneration, CannotDo, CannotUpgrade) as exc:
        raise Declined(409, str(exc)) from None
    except ConfigInvalid as exc:
        raise Declined(422, exc.text, INVALID) from None


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


def reload_request(values: Mapping[str, Any]) -> ReloadRequest:
    return ReloadRequest("command", pool_names(values), flag(values, "config_only"))


_MISSING = object()


def text(values: Mapping[str, Any], name: str, default: Any = _MISSING) -> Any:
    value = values.get(name, default)
    if value is default and default is not _MISSING:
        return default
    if not isinstance(value, str) or not value:
        raise Declined(400, f"{name}: expected a name", USAGE)
    return value


def number(values: Mapping[str, Any], name: str) -> int | None:
    """None: it is not given."""
    value = values.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise Declined(400, f"{name}: expected a whole number", USAGE)
    return value


def duration(values: Mapping[str, Any], name: str) -> float | None:
    """None: it is not given."""
    value = values.get(name)
    try:
        return None if value is None else positive_duration(value)
    except ValueError as exc:
        raise Declined(400, f"{name}: {exc}", USAGE) from None


def backend_name(values: Mapping[str, Any]) -> tuple[str, int]:
    """Pool and slot of `web.3`."""
    name = str(text(values, "backend"))
    pool, _, slot = name.rpartition(".")
    number = natural(slot)
    if not pool or number is None:
        raise Declined(400, f"backend: expected a name such as web.3, got {name[:100]!r}", USAGE)
    return pool, number


def natural(text: str) -> int | None:
    """None: it is no whole number, or one that nothing here can have."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def is_page(value: object) -> bool:
    try:
        return isinstance(value, str) and len(value.encode()) <= LONGEST_PAGE_BYTES
    except UnicodeEncodeError:  # half a surrogate pair: no bytes can say it
        return False
