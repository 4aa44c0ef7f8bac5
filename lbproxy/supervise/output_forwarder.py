"""What a backend says, on its way to the ring and to the log. Everything goes to the ring; a flood does not go to
the log whole: what was held back is counted and said. Knows no pipe.
"""

from collections.abc import Callable

import trio

from lbproxy.model import BackendId
from lbproxy.supervise.output import LOGGED_PER_S, Allowance, OutputRing, text_of
from lbproxy.telemetry.events import BackendOutput, Event, Notice


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
        self._allowance = Allowance(per_s)

    @property
    def settle_at(self) -> float:
        """When `settle` is to be called at the latest, on Trio's clock."""
        return self._allowance.tell_at

    def take(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self.settle()
        self._ring.add(lines)
        for line in self._allowance.take(lines):
            self._emit(BackendOutput(str(self._id), text_of(line)))

    def settle(self, *, over: bool = False) -> None:
        """Say what was held back, once its second is over, or now if nothing more will come."""
        held_back = self._allowance.settle(float("inf") if over else trio.current_time())
        if held_back:
            self._emit(
                Notice(
                    f"{self._id} wrote {held_back} more lines than the log takes in a second "
                    f"(the newest are in 'lbproxy logs {self._id.name}')"
                )
            )
