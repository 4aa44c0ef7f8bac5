"""Counts over an exec: they go on, and what another version counts otherwise begins anew."""

import json

from lbproxy.control.handed_counts import hand_on_counts, take_over_counts
from lbproxy.control.measured import Measured
from lbproxy.control.tallies import GenerationCounts
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S, RELOAD_BOUNDS_S, Histogram


def counted() -> Measured:
    measured = Measured()
    tallies = measured.tallies
    tallies.requests["web", "GET", "200"] = 7
    tallies.durations["web"] = Histogram(DURATION_BOUNDS_S)
    tallies.durations["web"].observe(0.02)
    tallies.incidents["retry"] = {("web", "stale"): 2}
    tallies.express["served"] = 9
    tallies.generations["web", 3] = GenerationCounts()
    tallies.generations["web", 3].errors = 4
    measured.events.reloads["web", "ok"] = Histogram(RELOAD_BOUNDS_S)
    measured.events.restarts["web", "crash"] = 5
    measured.events.ejections["web"] = 6
    measured.events.was_last_reload_ok = False
    measured.probes["web", True] = 11
    measured.usage.take_over({("web", "web.1"): 1.5, "1": 2.5})
    assert measured.growing.total("public", 1, 10) == 10
    assert measured.growing.total("public", 2, 3) == 13
    return measured


def over_an_exec(measured: Measured) -> Measured:
    taken = Measured()
    take_over_counts(taken, json.loads(json.dumps(hand_on_counts(measured))))
    return taken


def test_everything_that_was_counted_goes_on():
    before, after = counted(), over_an_exec(counted())
    assert hand_on_counts(after) == hand_on_counts(before)
    assert after.growing.total("public", "the same source under another name", 5) == 15
    assert after.events.ejections == {"web": 6}
    assert after.usage.cpu_s(("web", "web.1")) == 1.5


def test_what_another_version_counts_otherwise_begins_anew():
    handed = hand_on_counts(counted())
    handed["durations"] = [["web", [[1.0], [3, 4], 5.0]]]
    handed["requests"] = "nonsense"
    del handed["express"]
    taken = Measured()
    take_over_counts(taken, handed)
    assert taken.tallies.durations["web"].count == 0
    assert taken.tallies.requests == {}
    assert taken.tallies.express == {}
    assert taken.tallies.incidents == {"retry": {("web", "stale"): 2}}
