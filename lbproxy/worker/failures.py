"""Failed exchanges, told to control: each with its circumstances (`lbproxy why`), a few in a second as events.

Knows failures, the link and the clock. Access lines and counters tell of every exchange; this says why some failed.
"""

from collections.abc import Callable

import trio

from lbproxy.link.messages import FailedExchange, Failures
from lbproxy.telemetry.events import Event, ExchangeFailed

TOLD_PER_S = 10  # as events
KEPT_PER_S = 4000  # for `why`: more than a worker can serve in its task lane
BATCH = 200


class FailureReports:
    """Emits `exchange.failed`. Beyond TOLD_PER_S in a second, only the newest is kept; the others are counted in it.

    `post` takes the failures themselves, BATCH at a time, and the rest when settle() is called. Beyond KEPT_PER_S they
    are counted only.
    """

    def __init__(self, emit: Callable[[Event], None], post: Callable[[Failures], None]) -> None:
        self._emit = emit
        self._post = post
        self._since = float("-inf")
        self._left = TOLD_PER_S
        self._held: FailedExchange | None = None
        self._left_out = 0
        self._batch: list[FailedExchange] = []
        self._kept = 0
        self._not_kept = 0

    def tell(self, failed: FailedExchange) -> None:
        self._begin_second()
        self._keep(failed)
        if self._left > 0:
            self._left -= 1
            self._emit(event_of(failed))
            return
        self._left_out += self._held is not None
        self._held = failed

    def settle(self) -> None:
        """Send what waits for a full batch. Once a second is over, tell what it held back. To be called about once a
        second, and before anybody asks for failures."""
        self._begin_second()
        self._send()

    def _begin_second(self) -> None:
        now = trio.current_time()
        if now < self._since + 1.0:
            return
        self._since, self._left, self._kept = now, TOLD_PER_S, 0
        held, self._held = self._held, None
        if held is not None:
            self._emit(event_of(held, self._left_out))
            self._left_out = 0

    def _keep(self, failed: FailedExchange) -> None:
        if self._kept >= KEPT_PER_S:
            self._not_kept += 1
            return
        self._kept += 1
        self._batch.append(failed)
        if len(self._batch) >= BATCH:
            self._send()

    def _send(self) -> None:
        if self._batch or self._not_kept:
            batch, self._batch = self._batch, []
            self._post(Failures(tuple(batch), self._not_kept))
            self._not_kept = 0


def event_of(failed: FailedExchange, left_out: int = 0) -> ExchangeFailed:
    what = failed.request_id, failed.pool, failed.backend, failed.status, failed.error, failed.reason
    return ExchangeFailed(*what, left_out)
