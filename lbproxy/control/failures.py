"""The last failed exchanges of all workers, for `lbproxy why`.

Knows what the workers say. A worker that dies takes those of its last second with it.
"""

from collections import deque
from typing import Any

from lbproxy.control.api_server import Declined
from lbproxy.control.workers import Workers
from lbproxy.link.messages import FailedExchange, Failures
from lbproxy.telemetry.text import iso_time

MOST = 10_000
FAILED, USAGE = 1, 2


class FailedExchanges:
    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._failures: deque[FailedExchange] = deque(maxlen=MOST)
        self._left_out = 0
        workers.hearers[Failures] = self._take

    def _take(self, worker: int, message: Failures) -> None:
        self._failures.extend(message.items)
        self._left_out += message.left_out

    async def why(self, request_id: str) -> dict[str, Any]:
        """The failures with this request id, the oldest first. Raises Declined."""
        if not request_id:
            raise Declined(400, "request: expected the id of a request, as X-Request-ID says it", USAGE)
        await self._workers.stats()  # a worker tells its newest failures before it answers
        found = [_document(failure) for failure in self._failures if failure.request_id == request_id]
        if not found:
            raise Declined(404, self._unknown(request_id), FAILED)
        return {"request_id": request_id, "failures": found}

    def _unknown(self, request_id: str) -> str:
        known = len(self._failures)
        text = f"no failed exchange '{request_id[:100]}' among the last {known}"
        return text + (f"; {self._left_out} were too many to be remembered" if self._left_out else "")


def _document(failure: FailedExchange) -> dict[str, Any]:
    return {
        "time": iso_time(failure.time),
        "duration_s": round(failure.duration_s, 6),
        "client": failure.client,
        "request": failure.request,
        "pool": failure.pool,
        "backend": failure.backend,
        "status": failure.status,
        "error": failure.error,
        "reason": failure.reason,
        "tries": [{"backend": one.backend, "after_s": round(one.after_s, 6), "why": one.why} for one in failure.tries],
    }
