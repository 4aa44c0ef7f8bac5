"""Failed exchanges, told to the operator: each with its reason, but not more than a few in a second.

Knows one kind of event and the clock. Access lines and counters tell of every exchange; this says why some failed.
"""

from collections.abc import Callable
from dataclasses import replace

import trio

from lbproxy.telemetry.events import Event, ExchangeFailed

TOLD_PER_S = 10


class FailureReports:
    """Emits `exchange.failed`. Beyond TOLD_PER_S in a second, only the newest is kept; the others are counted in it."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._since = float("-inf")
        self._left = TOLD_PER_S
        self._held: ExchangeFailed | None = None
        self._left_out = 0

    def tell(self, failed: ExchangeFailed) -> None:
        self.settle()
        if self._left > 0:
            self._left -= 1
            self._emit(failed)
            return
        self._left_out += self._held is not None
        self._held = failed

    def settle(self) -> None:
        """Once a second is over, tell what it held back. To be called about once a second."""
        now = trio.current_time()
        if now < self._since + 1.0:
            return
        self._since, self._left = now, TOLD_PER_S
        held, self._held = self._held, None
        if held is not None:
            self._emit(replace(held, left_out=self._left_out))
            self._left_out = 0
