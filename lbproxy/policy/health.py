"""Rise and fall: the health of a backend after a row of probes, and the backends that may serve.

Frozen values. Does not know probes or time.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lbproxy.model import BackendId, State


@dataclass(frozen=True, slots=True)
class Health:
    """`row`: how many probes in a row contradict `healthy`."""

    healthy: bool
    row: int = 0

    def after(self, passed: bool, *, rise: int, fall: int) -> "Health":
        if passed == self.healthy:
            return Health(self.healthy)
        row = self.row + 1
        return Health(passed) if row >= (rise if passed else fall) else Health(self.healthy, row)


def servable(states: Iterable[tuple[BackendId, State]]) -> tuple[BackendId, ...]:
    """The ready backends; if none is ready, every live unhealthy one, because a bad probe must not be an outage."""
    known = list(states)
    ready = tuple(id for id, state in known if state is State.READY)
    return ready or tuple(id for id, state in known if state is State.UNHEALTHY)
