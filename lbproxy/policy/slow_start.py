"""Slow start: the share of the work that a backend gets in its first time in the table.

Plain functions: ages, loads and dice are arguments. A share is relative to that of the oldest backend, so backends that
are all new get equal shares.
"""

from collections.abc import Callable, Mapping, Sequence

from lbproxy.model import BackendView

LEAST = 0.05  # a share of 0 would keep a backend without any work


def shares(ages_s: Mapping[int, float | None], slow_start_s: float) -> dict[int, float]:
    """The share of each backend (by its cell) in proportion to its age; None: it is warm. The highest share is 1."""
    grown = {
        cell: 1.0 if age_s is None else max(LEAST, min(1.0, age_s / slow_start_s)) for cell, age_s in ages_s.items()
    }
    highest = max(grown.values(), default=1.0)
    return {cell: share / highest for cell, share in grown.items()}


def taking_part(
    candidates: Sequence[BackendView], share_of: Mapping[int, float], draw: Callable[[], float]
) -> Sequence[BackendView]:
    """Leave each backend out of a turn as often as its share says (round_robin). There is always one."""
    return [view for view in candidates if share_of[view.cell] >= 1.0 or draw() < share_of[view.cell]]


def eased(
    load: Callable[[int], float], share_of: Mapping[int, float], draw: Callable[[], float]
) -> Callable[[int], float]:
    """For least_conn and random_two: leases weigh more on a backend with a small share.

    Weights make no difference where no backend has a lease: so a new one counts as if it had one lease more, but for as
    many turns as its share says.
    """

    def weigh(cell: int) -> float:
        share = share_of[cell]
        return load(cell) / share + (0 if share >= 1.0 or draw() < share else 1)

    return weigh
