"""Passive ejection: when a backend that clients' work keeps failing on is left out, and how many may be at a time.

Plain functions over frozen values; time is an argument. Does not know what an error was.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Errors:
    """The recent errors of one backend: when, and how many each time."""

    seen: tuple[tuple[float, int], ...] = ()

    def after(self, number: int, *, now: float, within_s: float) -> "Errors":
        return Errors((*(one for one in self.seen if one[0] > now - within_s), (now, number)))

    @property
    def count(self) -> int:
        return sum(number for _, number in self.seen)


def most(fit: int, at_most_percent: int) -> int:
    """How many of the backends that could serve may be out at a time: never all of them."""
    return max(0, min(fit * at_most_percent // 100, fit - 1))


def left_out(ejected: Sequence[T], fit: Collection[T], at_most_percent: int) -> tuple[T, ...]:
    """Those of `ejected` that stay out: the last ones, because the first ones have been out for the longest.

    `fit`: all that could serve, with the ejected ones. Where others have gone, the floor brings ejected ones back.
    """
    present = [one for one in ejected if one in fit]
    return tuple(present[max(0, len(present) - most(len(fit), at_most_percent)) :])
