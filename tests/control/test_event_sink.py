"""Order, tries, and what happens to events when nobody takes them: in virtual time."""

import json

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.control.event_sink import PAUSE_S, QUEUE_EVENTS, TRIES, TRY_S, EventSink, NotDelivered
from lbproxy.telemetry.events import BackendFailed, BackendHealthy, BackendOutput, Notice, ReloadStarted


def healthy(number):
    return BackendHealthy("web", f"web.{number}@1")


class Receiver:
    """Takes events, or fails as `behave(name)` says."""

    def __init__(self, behave=None):
        self.tried = []
        self.taken = []
        self.behave = behave

    async def deliver(self, event):
        self.tried.append((trio.current_time(), json.loads(event.body), event.id))
        if self.behave is not None:
            await self.behave()
        self.taken.append(json.loads(event.body).get("backend"))


async def refuse():
    raise NotDelivered("connection refused")


@pytest.mark.parametrize(
    ("patterns", "event", "wanted"),
    [
        (("*",), healthy(1), True),
        (("reload.*", "backend.failed"), BackendFailed("web", "web.1@1", 5, 1.0), True),
        (("reload.*", "backend.failed"), healthy(1), False),
        (("reload.*",), ReloadStarted("r1", "USR2", ("web",)), True),
        (("*",), BackendOutput("web.1@1", "hello"), False),
        (("backend.*",), BackendOutput("web.1@1", "hello"), False),
        (("backend.output",), BackendOutput("web.1@1", "hello"), True),
        ((), healthy(1), False),
    ],
)
def test_patterns_say_what_is_wanted_and_output_only_by_its_name(patterns, event, wanted):
    assert EventSink("it", patterns, refuse, print).wants(event) is wanted


@trio_test(clock="autojump")
async def test_events_are_delivered_in_order_as_json():
    got = Receiver()
    sink = EventSink("it", ("*",), got.deliver, pytest.fail)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        for number in range(5):
            sink.offer(healthy(number))
        await sink.wait_done()
        nursery.cancel_scope.cancel()
    assert got.taken == [f"web.{number}@1" for number in range(5)]
    _, values, _ = got.tried[0]
    assert values["event"] == "backend.healthy"
    assert values["level"] == "info"
    assert values["time"]
    assert len({id for _, _, id in got.tried}) == 5


@trio_test(clock="autojump")
async def test_each_event_has_three_tries_of_five_seconds_and_the_outage_is_told_once():
    said = []
    got = Receiver(trio.sleep_forever)
    sink = EventSink("the webhook", ("*",), got.deliver, said.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        began = trio.current_time()
        sink.offer(healthy(1))
        await sink.wait_done()
        assert trio.current_time() - began == pytest.approx(TRIES * TRY_S + (TRIES - 1) * PAUSE_S)
        assert len({id for _, _, id in got.tried}) == 1
        got.behave = refuse
        sink.offer(healthy(2))
        await sink.wait_done()
        assert said == [Notice("events: the webhook does not take events: no answer within 5s (3 tries)")]
        got.behave = None
        sink.offer(healthy(3))
        await sink.wait_done()
        nursery.cancel_scope.cancel()
    assert got.taken == ["web.3@1"]
    assert said[1:] == [Notice("events: the webhook takes events again, 2 were lost")]


@trio_test(clock="autojump")
async def test_a_try_that_fails_is_repeated():
    failures = [NotDelivered("refused"), RuntimeError("with the URL in it"), None]

    async def behave():
        if (failure := failures.pop(0)) is not None:
            raise failure

    got = Receiver(behave)
    sink = EventSink("it", ("*",), got.deliver, pytest.fail)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        sink.offer(healthy(1))
        await sink.wait_done()
        nursery.cancel_scope.cancel()
    assert (len(got.tried), got.taken) == (3, ["web.1@1"])


@trio_test(clock="autojump")
async def test_the_oldest_are_dropped_and_counted():
    said = []
    got = Receiver()
    sink = EventSink("it", ("*",), got.deliver, said.append)
    for number in range(QUEUE_EVENTS + 7):
        sink.offer(healthy(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        await sink.wait_done()
        nursery.cancel_scope.cancel()
    assert got.taken == [f"web.{number}@1" for number in range(7, QUEUE_EVENTS + 7)]
    assert said == [Notice("events: it takes events again, 7 were lost")]
