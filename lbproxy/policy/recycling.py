"""When a backend that uses too much memory is replaced again. Plain numbers: no clock.

A limit that every new process exceeds must not replace backends without end: the pause grows as after crashes.
"""

from dataclasses import dataclass

from lbproxy.policy.backoff import delay_s

SETTLED_S = 60.0  # over the limit later than this after it was replaced: it has grown, and is replaced at once
FIRST_S, MAX_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Recycled:
    """The last time that a backend was replaced for its memory. Times are on one clock."""

    at: float
    in_row: int = 0  # how many times before, each soon after the one before it
    over_at: float | None = None  # when it was first seen over the limit again

    @property
    def is_soon(self) -> bool:
        return self.over_at is not None and self.over_at - self.at < SETTLED_S

    @property
    def due_at(self) -> float:
        """The earliest time to replace it again."""
        return self.at + delay_s(self.in_row + 1, FIRST_S, MAX_S, 0.0) if self.is_soon else self.at

    def again(self, at: float) -> "Recycled":
        return Recycled(at, self.in_row + 1 if self.is_soon else 0)
