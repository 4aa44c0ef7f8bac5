"""Everything that control has counted, as plain JSON, so that no counter goes back when lbproxy replaces itself.

Knows the books of measured.py. What the next version cannot read is passed over: a count that begins anew is a lesser
evil than an upgrade that fails.
"""

from collections.abc import Callable, Hashable, Mapping, MutableMapping
from typing import Any

from lbproxy.control.measured import Measured
from lbproxy.control.tallies import GenerationCounts
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S, RELOAD_BOUNDS_S, START_BOUNDS_S, Histogram

Pairs = list[list[Any]]  # a key, which is a string or a list, and a value


def hand_on_counts(measured: Measured) -> dict[str, Any]:
    tallies, events = measured.tallies, measured.events
    return {
        "requests": _pairs(tallies.requests),
        "durations": _histograms(tallies.durations),
        "request_bytes": _pairs(tallies.request_bytes),
        "response_bytes": _pairs(tallies.response_bytes),
        "waits": _histograms(tallies.waits),
        "incidents": [[name, _pairs(counts)] for name, counts in tallies.incidents.items()],
        "generations": [
            [list(key), [counts.errors, _histogram(counts.durations)]] for key, counts in tallies.generations.items()
        ],
        "express": _pairs(tallies.express),
        "reloads": _histograms(events.reloads),
        "restarts": _pairs(events.restarts),
        "starts": _histograms(events.starts),
        "ejections": _pairs(events.ejections),
        "last_reload_ok": events.was_last_reload_ok,
        "probes": _pairs(measured.probes),
        "cpu": _pairs(measured.usage.hand_on()),
        "growing": _pairs(measured.growing.hand_on()),
    }


def take_over_counts(measured: Measured, handed: Mapping[str, Any]) -> None:
    tallies, events = measured.tallies, measured.events

    def take(name: str, into: Callable[[Any], None]) -> None:
        try:
            into(handed[name])
        except (KeyError, TypeError, ValueError, IndexError):
            return

    def counts(book: MutableMapping[Any, Any]) -> Callable[[Any], None]:
        return lambda pairs: book.update(_book(pairs))

    def histograms(book: MutableMapping[Any, Histogram], bounds: tuple[float, ...]) -> Callable[[Any], None]:
        return lambda pairs: book.update({key: _taken(value, bounds) for key, value in _book(pairs).items()})

    def last_reload(value: Any) -> None:
        events.was_last_reload_ok = bool(value)

    take("requests", counts(tallies.requests))
    take("durations", histograms(tallies.durations, DURATION_BOUNDS_S))
    take("request_bytes", counts(tallies.request_bytes))
    take("response_bytes", counts(tallies.response_bytes))
    take("waits", histograms(tallies.waits, DURATION_BOUNDS_S))
    take("incidents", lambda pairs: tallies.incidents.update({name: _book(counts) for name, counts in pairs}))
    take("generations", lambda pairs: tallies.generations.update(_generations(pairs)))
    take("express", counts(tallies.express))
    take("reloads", histograms(events.reloads, RELOAD_BOUNDS_S))
    take("restarts", counts(events.restarts))
    take("starts", histograms(events.starts, START_BOUNDS_S))
    take("ejections", counts(events.ejections))
    take("last_reload_ok", last_reload)
    take("probes", counts(measured.probes))
    take("cpu", lambda pairs: measured.usage.take_over(_book(pairs)))
    take("growing", lambda pairs: measured.growing.take_over(_book(pairs)))


def _pairs(book: Mapping[Any, Any]) -> Pairs:
    return [[key, value] for key, value in book.items()]


def _book(pairs: Pairs) -> dict[Hashable, Any]:
    return {tuple(key) if isinstance(key, list) else key: value for key, value in pairs}


def _histogram(histogram: Histogram) -> list[Any]:
    return [list(histogram.bounds), histogram.buckets, histogram.total]


def _histograms(book: Mapping[Any, Histogram]) -> Pairs:
    return [[key, _histogram(histogram)] for key, histogram in book.items()]


def _taken(value: list[Any], bounds: tuple[float, ...]) -> Histogram:
    """Empty where another version counts between other bounds."""
    histogram = Histogram(bounds)
    if tuple(value[0]) == bounds:
        histogram.add([int(number) for number in value[1]], float(value[2]))
    return histogram


def _generations(pairs: Pairs) -> dict[tuple[str, int], GenerationCounts]:
    found = {}
    for (pool, number), (errors, durations) in pairs:
        counts = found[str(pool), int(number)] = GenerationCounts()
        counts.errors, counts.durations = int(errors), _taken(durations, DURATION_BOUNDS_S)
    return found
