"""Counts that are made of events."""

from dataclasses import replace

from lbproxy.control.event_counts import EventCounts
from lbproxy.telemetry.events import (
    BackendExited,
    BackendReady,
    BackendRecycled,
    BackendUnhealthy,
    ConfigRejected,
    Notice,
    ReloadDone,
    ReloadFinished,
    ReloadStarted,
)


def done(result: str, duration_s: float) -> ReloadDone:
    return ReloadDone("r1", "web", result, 2, 1, duration_s, requests=0, failed=0, cut=0, websockets_closed=0)


def test_a_reload_is_counted_when_it_is_over() -> None:
    counts = EventCounts()
    assert counts.was_last_reload_ok
    counts.take(ReloadStarted("r1", "command", ("web",)))
    assert counts.is_reloading
    for result, duration_s in (("ok", 2.0), ("ok", 9.0), ("rolled_back", 1.0)):
        counts.take(done(result, duration_s))
    counts.take(ReloadFinished("r1", 5, ""))
    assert not counts.is_reloading
    assert not counts.was_last_reload_ok
    assert {key: (made.count, made.total) for key, made in counts.reloads.items()} == {
        ("web", "ok"): (2, 11.0),
        ("web", "rolled_back"): (1, 1.0),
    }
    counts.take(ReloadStarted("r2", "command", ("web",), "drain"))
    counts.take(ReloadFinished("r2", 0, ""))
    assert not counts.was_last_reload_ok, "a drain is no reload"
    counts.take(ReloadStarted("r3", "USR2", ("web",)))
    counts.take(ReloadFinished("r3", 0, ""))
    assert counts.was_last_reload_ok
    counts.take(ConfigRejected("lb.toml", "lb.toml:1:1: error"))
    assert not counts.was_last_reload_ok


def test_only_a_backend_that_is_started_again_is_a_restart() -> None:
    counts = EventCounts()
    counts.take(BackendExited("web", "web.1@1", 7, "exit code 1", 0.5, ()))
    counts.take(BackendExited("web", "web.1@1", 7, "exit code 1", None, ()))
    counts.take(BackendRecycled("web", "web.1@1", 7, 60.0, 0.0))
    counts.take(replace(done("ok", 2.0), verb="recycle"))
    counts.take(replace(done("rolled_back", 2.0), verb="recycle"))
    counts.take(Notice("something else"))
    assert counts.restarts == {("web", "crash"): 1, ("web", "recycled"): 1, ("web", "max_memory"): 1}
    assert counts.reloads == {}


def test_the_time_to_ready_is_measured() -> None:
    counts = EventCounts()
    counts.take(BackendReady("web", "web.1@1", 0.7))
    assert (counts.starts["web"].count, counts.starts["web"].total) == (1, 0.7)


def test_an_ejection_is_counted_but_not_a_failed_probe() -> None:
    counts = EventCounts()
    counts.take(BackendUnhealthy("web", "web.1@1", "GET /healthz: 503"))
    counts.take(BackendUnhealthy("web", "web.1@1", "ejected: 5 errors in 10s", 10.0))
    assert counts.ejections == {"web": 1}
