"""Forward a backend's lines of output to its ring and to the log.

The ring gets every line. The log gets at most so many lines a second; then a notice says how many were left out.
Knows no pipe.
"""

from collections.abc import Callable

import trio

from lbproxy.model import BackendId
from lbproxy.supervise.output import LOGGED_PER_S, LineLimit, OutputRing, text_of
from lbproxy.telemetry.events import BackendOutput, Event, Notice
from lbproxy.telemetry.words import count


class OutputForwarder:
    def __init__(
        self,
        id: BackendId,
        ring: OutputRing,
        emit: Callable[[Event], None],
        *,
        per_s: Callable[[], int] = lambda: LOGGED_PER_S,
    ) -> None:
        self._id = id
        self._ring = ring
        self._emit = emit
        self._limit = LineLimit(per_s)

    @property
    def report_at(self) -> float:
        """The time on Trio's clock at which `report` is due; infinite while no line was left out."""
        return self._limit.report_at

    def take(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self.report()
        at = self._ring.add(lines)
        for line in self._limit.take(lines):
            self._emit(BackendOutput(str(self._id), text_of(line), at))

    def report(self, *, over: bool = False) -> None:
        """Emit how many lines were left out of the log, if their second is over. `over`: the output has ended."""
        left_out = self._limit.next_second(float("inf") if over else trio.current_time())
        if left_out:
            self._emit(
                Notice(
                    f"{self._id} wrote {count(left_out, 'more line')} than the log takes in a second "
                    f"(the newest are in 'lbproxy logs {self._id.name}')"
                )
            )
