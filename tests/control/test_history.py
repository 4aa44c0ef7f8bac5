"""The record of a change, made from its events."""

import pytest
import trio
import trio.testing

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


def record():
    history = History(lambda record: None)
    history.observe(done(), 1.0)
    return history.records[0]


def test_a_saved_record_that_misses_a_key_or_has_another_type_is_no_record():
    for key in ("verb", "id", "pool", "result", "started_at", "duration_s", "asked_by", "generation", "requests"):
        for broken in ({**record(), key: None}, {k: v for k, v in record().items() if k != key}):
            history = History(lambda record: None)
            with pytest.raises(TypeError, match="not a record"):
                history.restore([record(), broken])
            assert not history.records


def test_the_record_of_a_change_is_there_when_it_is_over_and_not_while_it_is_paused():
    async def main():
        history = History(lambda record: None)
        history.observe(done("r2", result="paused"), 2.0)
        found = []
        async with trio.open_nursery() as nursery:

            async def look():
                found.append(await history.record_of("r2", "web"))

            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            assert not found
            history.observe(done("r2", result="aborted"), 3.0)
        assert found[0]["result"] == "aborted"

    trio.run(main)


def test_the_last_thousand_are_kept_and_an_earlier_life_comes_first():
    history = History(lambda record: None)
    history.observe(done("r1"), 1.0)
    history.restore([{**record(), "id": f"old{number}"} for number in range(MOST_RECORDS + 50)])
    assert len(history.records) == MOST_RECORDS
    assert history.records[-1]["id"] == "r1"
    history.observe(done("r2", pool="api"), 1.0)
    assert [record["id"] for record in history.of(None, 2)] == ["r1", "r2"]
    assert [record["id"] for record in history.of("api", 5)] == ["r2"]
    assert history.of(None, 0) == []
