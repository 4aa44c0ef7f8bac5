"""The record of a change, made from its events."""

from lbproxy.control.history import MOST_RECORDS, History
from lbproxy.telemetry import events as e

ASKED = {"uid": 1000, "pid": 7, "how": "command"}


def done(id="r1", pool="web", result="ok", **more):
    return e.ReloadDone(id, pool, result, 7, 6, 2.5, 100, 1, 2, 3, **more)


def test_a_record_has_what_the_events_told():
    told = []
    history = History(told.append)
    for event in (
        e.ReloadStarted("r1", "command", ("web", "api"), asked_by=ASKED),
        e.BackendReady("web", "web.1@7", 0.4, reload="r1"),
        e.BackendProved("web", "web.1@7", 1.4, reload="r1"),
        e.BackendReady("web", "web.9@3", 0.4),
        e.BackendDrained("web", "web.1@6", 3.0, 2, reload="r1"),
        done(why="because", output=("a", "b")),
    ):
        history.observe(event, 1767268802.5)
    (record,) = history.records
    assert told == [record]
    assert record == {
        "verb": "reload",
        "id": "r1",
        "pool": "web",
        "result": "ok",
        "started_at": "2026-01-01T12:00:00.000Z",
        "duration_s": 2.5,
        "asked_by": ASKED,
        "from_generation": 6,
        "generation": 7,
        "why": "because",
        "backends": [
            {"slot": 1, "generation": 7, "ready_after_s": 0.4, "proved_after_s": 1.4},
            {"slot": 1, "generation": 6, "drained_after_s": 3.0, "cut": 2},
        ],
        "requests": 100,
        "failed": 1,
        "cut": 2,
        "websockets_closed": 3,
        "output": ["a", "b"],
        "compared": [],
    }


def test_a_signal_is_named_and_a_paused_reload_goes_on_in_its_own_record():
    history = History(lambda record: None)
    history.observe(e.ReloadStarted("r2", "USR2", ("web",)), 1.0)
    history.observe(e.BackendReady("web", "web.1@7", 0.4, reload="r2"), 1.0)
    history.observe(done("r2", result="paused"), 2.0)
    history.observe(e.ReloadFinished("r2", 9, ""), 2.0)
    history.observe(e.ReloadStarted("r2", "resume", ("web",)), 3.0)
    history.observe(done("r2", same_as=5, backend="web.1", size=3), 4.0)
    history.observe(e.ReloadFinished("r2", 0, ""), 4.0)
    paused, ended = history.records
    assert paused["asked_by"] == ended["asked_by"] == {"how": "USR2"}
    assert (paused["result"], ended["result"]) == ("paused", "ok")
    assert (ended["same_as"], ended["backend"], ended["size"]) == (5, "web.1", 3)
    assert len(ended["backends"]) == 1


def test_the_last_thousand_are_kept_and_an_earlier_life_comes_first():
    history = History(lambda record: None)
    history.observe(done("r1"), 1.0)
    history.restore([{"pool": "web", "id": f"old{number}"} for number in range(MOST_RECORDS + 50)])
    assert len(history.records) == MOST_RECORDS
    assert history.records[-1]["id"] == "r1"
    history.observe(done("r2", pool="api"), 1.0)
    assert [record["id"] for record in history.of(None, 2)] == ["r1", "r2"]
    assert [record["id"] for record in history.of("api", 5)] == ["r2"]
    assert history.of(None, 0) == []
