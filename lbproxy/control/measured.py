"""Everything that control knows for metrics and figures, beyond what the grid and the pools say themselves."""

from collections.abc import Hashable, Mapping, MutableMapping
from dataclasses import dataclass, field

from lbproxy.control.event_counts import EventCounts
from lbproxy.control.tallies import Tallies
from lbproxy.control.usage_book import UsageBook


class Growing:
    """A total whose sources come and go, each beginning at 0: the sum does not go back."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Hashable, int, int]] = {}  # source, sum of the sources before, newest value

    def hand_on(self) -> dict[Hashable, tuple[int, int]]:
        return {label: (before, newest) for label, (_, before, newest) in self._known.items()}

    def take_over(self, totals: Mapping[Hashable, tuple[int, int]]) -> None:
        """Go on from an earlier program of this control. The sources are the same, and may have other names here."""
        for label, (before, newest) in totals.items():
            self._known[label] = None, before, newest

    def total(self, label: Hashable, source: Hashable, value: int) -> int:
        """`value`: what `source` has counted so far."""
        last, before, newest = self._known.get(label, (source, 0, 0))
        if last not in (None, source):
            before += newest
        self._known[label] = source, before, value
        return before + value


@dataclass(frozen=True, slots=True)
class Measured:
    tallies: Tallies = field(default_factory=Tallies)
    events: EventCounts = field(default_factory=EventCounts)
    usage: UsageBook = field(default_factory=UsageBook)
    probes: MutableMapping[tuple[str, bool], int] = field(default_factory=dict)  # by pool and whether they passed
    growing: Growing = field(default_factory=Growing)
