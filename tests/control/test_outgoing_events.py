"""[events] as a whole: what a reload changes, and what it leaves alone."""

import trio
from support.receiver import receiver
from support.trio_test import trio_test

from lbproxy.control.outgoing_events import OutgoingEvents
from lbproxy.settings import EventsSettings, RedisSettings, Secret, WebhookSettings
from lbproxy.telemetry.events import BackendHealthy, Notice
from lbproxy.telemetry.log import Log


class Nowhere:
    is_terminal = False

    def describe_losses(self, describe):
        pass

    def write(self, line):
        pass


def webhook(port, *patterns):
    return EventsSettings(webhook=WebhookSettings(Secret(f"http://127.0.0.1:{port}/"), patterns))


@trio_test(timeout_s=20)
async def test_a_sink_whose_settings_stay_is_kept_and_others_come_and_go():
    log = Log(Nowhere(), level="info", format="json")
    outgoing = OutgoingEvents(log)
    with receiver() as first, receiver() as second:
        async with trio.open_nursery() as nursery:
            await nursery.start(outgoing.run, webhook(first.port, "backend.*"))
            kept = list(outgoing._running.values())
            log.emit(BackendHealthy("web", "web.1@1"))
            log.emit(Notice("not wanted"))
            await trio.to_thread.run_sync(first.wait, 1)
            outgoing.apply(webhook(first.port, "backend.*"))
            assert list(outgoing._running.values()) == kept
            outgoing.apply(webhook(second.port, "notice"))
            await trio.testing.wait_all_tasks_blocked()
            log.emit(BackendHealthy("web", "web.2@1"))
            log.emit(Notice("wanted"))
            await trio.to_thread.run_sync(second.wait, 1)
            await outgoing.wait_done()
            outgoing.apply(EventsSettings())
            await trio.testing.wait_all_tasks_blocked()
            assert log._subscriptions == [], "nobody pays for events that nobody wants"
            nursery.cancel_scope.cancel()
        assert (first.names(), second.names()) == (["backend.healthy"], ["notice"])


@trio_test(timeout_s=20)
async def test_a_library_that_refuses_its_settings_is_told_and_costs_nothing_else():
    log = Log(Nowhere(), level="info", format="json")
    outgoing = OutgoingEvents(log)
    with log.subscribe() as said:
        async with trio.open_nursery() as nursery:
            await nursery.start(outgoing.run, EventsSettings(redis=RedisSettings(Secret("mailto:sesame"))))
            nursery.cancel_scope.cancel()
        event = await anext(said)
        assert isinstance(event, Notice)
        assert "redis cannot be used" in event.text
        assert "sesame" not in event.text
