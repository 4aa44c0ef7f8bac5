"""Everything that control knows for metrics and figures, beyond what the grid and the pools say themselves."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from lbproxy.control.event_counts import EventCounts
from lbproxy.control.tallies import Tallies
from lbproxy.control.usage_book import UsageBook


class Growing:
    """A total whose sources come and go, each beginning at 0: the sum does not go back."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Hashable, int, int]] = {}  # source, sum of the sources before, newest value

    def total(self, label: Hashable, source: Hashable, value: int) -> int:
        """`value`: what `source` has counted so far."""
        last, before, newest = self._known.get(label, (source, 0, 0))
        if last != source:
            before += newest
        self._known[label] = source, before, value
        return before + value


@dataclass(frozen=True, slots=True)
class Measured:
    tallies: Tallies = field(default_factory=Tallies)
    events: EventCounts = field(default_factory=EventCounts)
    usage: UsageBook = field(default_factory=UsageBook)
    probes: Mapping[tuple[str, bool], int] = field(default_factory=dict)  # by pool and whether they passed
    growing: Growing = field(default_factory=Growing)
