"""The lines of an upgrade's answer, and whether its connection can be handed on."""

import trio
import trio.testing
from support.trio_test import trio_test

from control.quiet_sink import QuietSink
from lbproxy.control.upgrade_stream import UpgradeStream
from lbproxy.telemetry.events import BackendReady, Notice, UpgradeDone, UpgradeStarted, WorkerStarted
from lbproxy.telemetry.log import Log


@trio_test
async def test_it_has_the_events_of_its_upgrade_and_those_of_workers():
    log = Log(QuietSink(), level="info", format="json")
    stream = UpgradeStream(log, "u1", 7)
    for event in (
        UpgradeStarted("u1", "1"),
        UpgradeStarted("u2", "1"),
        BackendReady("web", "web.1@1", 1.0),
        Notice("of nobody"),
        Notice("of this one", reload="u1"),
        WorkerStarted(3, 44),
        UpgradeDone("u1", "ok", 0, "1", "2", 1.0),
    ):
        log.emit(event)
    names = [line["event"] async for line in stream.lines()]
    assert names == ["upgrade.started", "notice", "worker.started", "upgrade.done"]


async def read_on(lines):
    async for _ in lines:
        pass


@trio_test
async def test_the_connection_is_handed_on_when_every_line_is_sent():
    log = Log(QuietSink(), level="info", format="json")
    stream = UpgradeStream(log, "u1", 7)
    assert stream.client_fd == 7
    log.emit(UpgradeStarted("u1", "1"))
    assert (stream.is_idle, stream.client_fd) == (False, -1)
    lines = stream.lines()
    await anext(lines)
    assert not stream.is_idle, "it is being sent"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on, lines)
        await trio.testing.wait_all_tasks_blocked()
        assert (stream.is_idle, stream.client_fd) == (True, 7)
        stream.close()
        assert (stream.is_idle, stream.client_fd) == (True, -1), "the command has gone"
        nursery.cancel_scope.cancel()
