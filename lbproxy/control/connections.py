"""Questions about open connections, put to the workers and answered page by page (CONTRACT.md 3).

Control knows no connection itself, and asks the workers only when an operator asks.
"""

import re
from collections.abc import Mapping
from typing import Any

import trio

from lbproxy.control.api_server import Declined
from lbproxy.control.fleet import Fleet
from lbproxy.control.workers import Workers
from lbproxy.link.messages import AskConnections, CloseConnection, Closed, ConnectionRow, Connections

ANSWER_S = 5.0
MOST_ROWS = 1000
FAILED, USAGE = 1, 2
_ID = re.compile(r"w([1-9]\d{0,3})-([1-9]\d{0,18})(?:/([1-9]\d{0,9}))?")


class OpenConnections:
    def __init__(self, workers: Workers, fleet: Fleet) -> None:
        self._workers = workers
        self._fleet = fleet
        self._ask = 0
        self._waiting: dict[int, _Question] = {}
        workers.hearers |= {Connections: self._take, Closed: self._take}

    async def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        """`source` (pool or backend; none: all), `after` (an id), `limit`. Raises Declined.

        `next`: the id to go on after; None: this was the last page. `silent_workers`: those that did not answer, whose
        connections are missing. `states`: of the backends that `source` means.
        """
        limit = _limit(query.get("limit", ""))
        first, after, stream = _parsed(query["after"]) if query.get("after") else (0, 0, 0)
        pool, states = self._source(query.get("source", ""))
        rows: list[dict[str, Any]] = []
        silent: list[int] = []
        has_more = False
        for worker in [id for id in self._workers.serving if id >= first]:
            if has_more or len(rows) == limit:
                has_more = True
                break
            begin = (after, stream) if worker == first else (0, 0)
            backends = () if pool else tuple(states)
            ask = AskConnections(self._next(), begin[0], limit - len(rows), pool, backends, begin[1])
            answer = await self._answered(worker, ask)
            has_more = answer.has_more
            rows += [_row(worker, row) for row in answer.rows]
            if not answer.done.is_set():
                silent.append(worker)
        following = rows[-1]["id"] if has_more and rows else None
        return {"connections": rows, "next": following, "silent_workers": silent, "states": states}

    async def close(self, id: object) -> dict[str, Any]:
        """End one connection as its drain would. Raises Declined."""
        if not isinstance(id, str):
            raise Declined(400, "connection: expected an id, such as 'w1-483'", USAGE)
        worker, number, stream = _parsed(id)
        if worker not in self._workers.serving:
            raise Declined(404, f"no connection '{id}': no worker {worker} serves", FAILED)
        answer = await self._answered(worker, CloseConnection(self._next(), number, stream))
        if not answer.done.is_set():
            raise Declined(504, f"worker {worker} does not answer", FAILED)
        if not answer.how:
            raise Declined(404, f"no connection '{id}' (any more)", FAILED)
        return {"connection": id, "how": answer.how}

    # The workers' side

    def _next(self) -> int:
        self._ask += 1
        return self._ask

    async def _answered(self, worker: int, ask: AskConnections | CloseConnection) -> "_Question":
        """The answer, as far as it came within ANSWER_S."""
        question = self._waiting[ask.ask] = _Question(worker)
        try:
            self._workers.post(worker, ask)
            with trio.move_on_after(ANSWER_S):
                await question.done.wait()
        finally:
            del self._waiting[ask.ask]
        return question

    def _take(self, worker: int, message: Connections | Closed) -> None:
        question = self._waiting.get(message.ask)
        if question is None or question.worker != worker:
            return
        if isinstance(message, Closed):
            question.how = message.how
            question.done.set()
            return
        if len(question.rows) + len(message.rows) <= MOST_ROWS:
            question.rows += message.rows
        if message.is_last:
            question.has_more = message.has_more
            question.done.set()

    # What is asked

    def _source(self, source: str) -> tuple[str | None, dict[str, str]]:
        """The pool, if it is one; and the backends that are meant, with their states. Raises Declined."""
        pools = self._fleet.pools
        if source in pools or not source:
            return source or None, {}
        members = [(member.backend.id, pool.state_of(member)) for pool in pools.values() for member in pool.members]
        states = {str(id): state for id, state in members if source in (id.name, str(id))}
        if not states:
            known = ", ".join([*pools, *sorted({id.name for id, _ in members})])
            raise Declined(404, f"no pool or backend '{source}' (there is: {known})", FAILED)
        return None, states


class _Question:
    """One question to one worker, and what has come of the answer."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.rows: list[ConnectionRow] = []
        self.has_more = False
        self.how = ""
        self.done = trio.Event()


def _parsed(id: str) -> tuple[int, int, int]:
    """The worker, the number in it, and the stream or 0. Raises Declined."""
    found = _ID.fullmatch(id)
    if found is None:
        raise Declined(400, f"expected the id of a connection, such as 'w1-483', got '{id[:40]}'", FAILED)
    return int(found[1]), int(found[2]), int(found[3] or 0)


def _limit(text: str) -> int:
    if not text:
        return MOST_ROWS
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_ROWS):
        raise Declined(400, f"limit: expected 1 to {MOST_ROWS}, got '{text[:20]}'", USAGE)
    return int(text)


def _row(worker: int, row: ConnectionRow) -> dict[str, Any]:
    return {
        "id": f"w{worker}-{row.number}/{row.stream}" if row.stream else f"w{worker}-{row.number}",
        "worker": worker,
        "client": row.client,
        "listener": row.listener,
        "kind": row.kind,
        "backend": row.backend,
        "age_s": _seconds(row.age_s),
        "bytes_10s": row.moved_bytes,
        "silent_s": _seconds(row.silent_s),
        "rule": row.rule,
        "grace_s": row.grace_s,
        "left_s": _seconds(row.left_s),
    }


def _seconds(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s, 3)
