"""`lbproxy logs`: the last lines of the backends, from their rings, and of the access log, from its file.

Reads the rings of output. Knows nothing of how they are filled.
"""

import heapq
import os
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import trio

from lbproxy.control.api_server import Declined
from lbproxy.control.context import ControlContext
from lbproxy.model import BackendId
from lbproxy.supervise.output import OutputBook, OutputLine
from lbproxy.telemetry.text import iso_time

USAGE = 2
MAX_LINES = 10_000
TAIL_BYTES = 1024 * 1024


def log_lines(
    query: Mapping[str, str], outputs: OutputBook, context: ControlContext
) -> AsyncGenerator[Mapping[str, Any], None]:
    """`source` (pool, backend, or "access"; none: all), `n`, `gen`, `follow`. Raises Declined."""
    count = min(_number(query, "n", 100) or 0, MAX_LINES)
    generation = _number(query, "gen", None)
    follow = query.get("follow", "") not in ("", "0")
    source = query.get("source") or None
    if source == "access":
        return _access_lines(_access_path(context, follow), count)
    pool, slot = _pool_and_slot(source, outputs, context)
    return _output_lines(Selection(outputs, pool, slot, generation), count, follow)


class Selection:
    """The rings that match the request, and how far each has been read."""

    def __init__(self, outputs: OutputBook, pool: str | None, slot: int | None, generation: int | None) -> None:
        self._outputs = outputs
        self._which = pool, slot, generation
        self._read: dict[BackendId, int] = {}

    def newer(self) -> list[tuple[BackendId, OutputLine]]:
        """The new lines since the last call, in the order of time."""
        rows = []
        for id, ring in self._outputs.rings(*self._which):
            lines = ring.since(self._read.get(id, 0))
            self._read[id] = ring.newest
            rows.append([(line.time, id, line) for line in lines])
        return [(id, line) for _, id, line in heapq.merge(*rows, key=lambda entry: entry[:2])]

    async def wait_changed(self) -> None:
        await self._outputs.wait_changed()


async def _output_lines(selection: Selection, count: int, follow: bool) -> AsyncGenerator[Mapping[str, Any], None]:
    found = selection.newer()
    for id, line in found[max(0, len(found) - count) :]:
        yield _entry(id, line)
    while follow:
        more = selection.newer()
        for id, line in more:
            yield _entry(id, line)
        if not more:
            await selection.wait_changed()


def _entry(id: BackendId, line: OutputLine) -> dict[str, Any]:
    return {"time": iso_time(line.time), "backend": str(id), "generation": id.generation, "line": line.text}


async def _access_lines(path: str, count: int) -> AsyncGenerator[Mapping[str, Any], None]:
    try:
        lines = await trio.to_thread.run_sync(tail, path, count)
    except OSError as exc:
        lines = [f"{path}: {exc.strerror}"]
    for line in lines:
        yield {"line": line}


def tail(path: str, count: int) -> list[str]:
    """The last lines of a file, from its last MiB."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        lines = file.read().split(b"\n")
    if size > TAIL_BYTES:
        del lines[0]
    kept = deque((line for line in lines if line), maxlen=count)
    return [line.decode("utf-8", "backslashreplace") for line in kept]


def _access_path(context: ControlContext, follow: bool) -> str:
    log = context.settings.log
    if log.access == "off":
        raise Declined(404, "the access log is off ([log] access)", USAGE)
    if log.access_path == "-":
        raise Declined(404, "the access log goes to standard output ([log] access_path)", USAGE)
    if follow:
        raise Declined(501, f"following the access log is not supported yet: tail -F {log.access_path}")
    return log.access_path


def _pool_and_slot(source: str | None, outputs: OutputBook, context: ControlContext) -> tuple[str | None, int | None]:
    if source is None:
        return None, None
    if source in context.fleet.pools:
        return source, None
    pool, _, slot = source.rpartition(".")
    if pool in context.fleet.pools and slot.isascii() and slot.isdigit() and outputs.rings(pool, int(slot)):
        return pool, int(slot)
    known = [*context.fleet.pools, *sorted({id.name for id, _ in outputs.rings()}), "access"]
    raise Declined(404, f"no pool or backend '{source}' (there is: {', '.join(known)})", USAGE)


def _number(query: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Declined(400, f"{name}: expected a number, got '{text[:20]}'", USAGE)
    return int(text)
