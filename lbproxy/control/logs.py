"""`lbproxy logs`: the last lines of the backends, from their rings, and what may be asked for.

Reads the rings of output. Knows nothing of how they are filled.
"""

import heapq
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import trio

from lbproxy.control.access_lines import access_lines
from lbproxy.control.api_server import Declined
from lbproxy.control.context import ControlContext
from lbproxy.model import BackendId
from lbproxy.supervise.output import OutputBook, OutputLine
from lbproxy.telemetry.text import iso_time

USAGE = 2
MAX_LINES = 10_000


class Followers:
    """The clients that follow a log. They get the last lines, and the end of their answer, before lbproxy is gone."""

    def __init__(self) -> None:
        self.stopped = trio.Event()  # every answer ends when its last lines are sent
        self._count = 0
        self._changed = trio.Event()

    def enter(self) -> Callable[[], None]:
        """Count one more. The result is called when its answer has ended."""
        self._count += 1
        return self._leave

    def _leave(self) -> None:
        self._count -= 1
        self._changed.set()
        self._changed = trio.Event()

    async def end(self, within_s: float) -> None:
        """Returns when every follower has its last lines, or when the time is over."""
        self.stopped.set()
        with trio.move_on_after(within_s):
            while self._count:
                await self._changed.wait()


def log_lines(
    query: Mapping[str, str], outputs: OutputBook, context: ControlContext, stopped: trio.Event
) -> AsyncGenerator[Mapping[str, Any], None]:
    """`source` (pool, backend, or "access"; none: all), `n`, `gen`, `since` (seconds), `follow`. Raises Declined.

    With `follow` the lines end when `stopped` is set.
    """
    count = min(_number(query, "n", 100) or 0, MAX_LINES)
    generation = _number(query, "gen", None)
    ago_s = _number(query, "since", None)
    since = 0.0 if ago_s is None else time.time() - ago_s
    follow = stopped if is_following(query) else None
    source = query.get("source") or None
    if source == "access":
        path = _access_path(context)
        return access_lines(path, context.workers, count=count, since=since, follow=follow)
    which = _which(source, generation, outputs, context)
    if follow is None and which[2] is not None and not outputs.rings(*which):
        raise Declined(404, _no_generation(which, outputs), USAGE)
    return _output_lines(Selection(outputs, which, since), count, follow)


def is_following(query: Mapping[str, str]) -> bool:
    return query.get("follow", "") not in ("", "0")


Which = tuple[str | None, int | None, int | None]  # pool, slot, generation


class Selection:
    """The rings that match the request, and how far each has been read."""

    def __init__(self, outputs: OutputBook, which: Which, since: float) -> None:
        self._outputs = outputs
        self._which = which
        self._since = since
        self._read: dict[BackendId, int] = {}

    def newer(self) -> list[tuple[BackendId, OutputLine]]:
        """The new lines since the last call, in the order of time."""
        rows = []
        for id, ring in self._outputs.rings(*self._which):
            lines = ring.since(self._read.get(id, 0))
            self._read[id] = ring.newest
            rows.append([(line.time, id, line) for line in lines if line.time >= self._since])
        return [(id, line) for _, id, line in heapq.merge(*rows, key=lambda entry: entry[:2])]

    async def wait_changed(self) -> None:
        await self._outputs.wait_changed()


async def _output_lines(
    selection: Selection, count: int, follow: trio.Event | None
) -> AsyncGenerator[Mapping[str, Any], None]:
    found = selection.newer()
    for id, line in found[max(0, len(found) - count) :]:
        yield _entry(id, line)
    while follow is not None:
        more = selection.newer()
        for id, line in more:
            yield _entry(id, line)
        if not more and follow.is_set():
            return
        if not more:
            await _wait_first(selection.wait_changed, follow.wait)


async def _wait_first(*waits: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:

        async def first(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(first, wait)


def _entry(id: BackendId, line: OutputLine) -> dict[str, Any]:
    return {"time": iso_time(line.time), "backend": str(id), "generation": id.generation, "line": line.text}


def _access_path(context: ControlContext) -> str | None:
    """None: the log goes to standard output, which cannot be read back."""
    log = context.settings.log
    if log.access == "off":
        raise Declined(404, "the access log is off ([log] access)", USAGE)
    return None if log.access_path == "-" else log.access_path


def _which(source: str | None, generation: int | None, outputs: OutputBook, context: ControlContext) -> Which:
    """`source` is a pool, a backend, or either with its generation, as messages name it: `web.1@6`."""
    if source is None:
        return None, None, generation
    name, at, number = source.partition("@")
    if at and (not _is_number(number) or generation not in (None, int(number))):
        raise Declined(400, f"{source}: expected one generation, as in web.1@6", USAGE)
    generation = int(number) if at else generation
    if name in context.fleet.pools:
        return name, None, generation
    pool, _, slot = name.rpartition(".")
    if pool in context.fleet.pools and _is_number(slot) and outputs.rings(pool, int(slot)):
        return pool, int(slot), generation
    known = [*context.fleet.pools, *sorted({id.name for id, _ in outputs.rings()}), "access"]
    raise Declined(404, f"no pool or backend '{name}' (there is: {', '.join(known)})", USAGE)


def _no_generation(which: Which, outputs: OutputBook) -> str:
    pool, slot, generation = which
    known = sorted({id.generation for id, _ in outputs.rings(pool, slot)})
    of = f" of {pool}" + (f".{slot}" if slot is not None else "") if pool is not None else ""
    return f"no lines of generation {generation}{of} (there is: {', '.join(map(str, known)) or 'none'})"


def _number(query: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = query.get(name, "")
    if not text:
        return default
    if not _is_number(text):
        raise Declined(400, f"{name}: expected a number, got '{text[:20]}'", USAGE)
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
