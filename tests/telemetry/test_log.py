import json
import os
import pty
from pathlib import Path

import pytest
import trio
import trio.testing
from support.trio_test import trio_test

from lbproxy.telemetry.events import BackendDraining, BackendFailed, BackendOutput, Event, LogDropped, Notice
from lbproxy.telemetry.log import SUBSCRIPTION_EVENTS, Log
from lbproxy.telemetry.sink import Sink

NOON = 1767268800.0


class Written:
    def __init__(self, path: Path, *, level: str = "info", format: str = "text") -> None:
        self.path = path
        self.log = Log(Sink(str(path)), level=level, format=format, now=lambda: NOON)

    def lines(self) -> list[str]:
        self.log.close(5)
        return self.path.read_text().splitlines()


def test_an_event_becomes_a_line(tmp_path: Path) -> None:
    written = Written(tmp_path / "log")
    written.log.emit(Notice("hello"))
    assert written.lines() == ["2026-01-01T12:00:00.000Z warn  hello"]


def test_json_is_an_object_a_line(tmp_path: Path) -> None:
    written = Written(tmp_path / "log", format="json")
    written.log.emit(Notice("hello"))
    assert [json.loads(line) for line in written.lines()] == [
        {"event": "notice", "time": "2026-01-01T12:00:00.000Z", "level": "warning", "text": "hello"}
    ]


@pytest.mark.parametrize(("level", "expected"), [("debug", 3), ("info", 3), ("warning", 2), ("error", 1)])
def test_only_what_the_level_asks_for_is_written(tmp_path: Path, level: str, expected: int) -> None:
    written = Written(tmp_path / "log", level=level)
    for event in (BackendOutput("web.1@1", "x"), Notice("y"), BackendFailed("web", "web.1@1", 5, 60)):
        written.log.emit(event)
    assert len(written.lines()) == expected


def test_an_observer_sees_every_event_whatever_the_level(tmp_path: Path) -> None:
    written = Written(tmp_path / "log", level="error")
    seen: list[Event] = []
    written.log.observe(seen.append)
    written.log.emit(Notice("y"))
    assert seen == [Notice("y")]
    assert written.lines() == []


def test_auto_is_text_on_a_terminal_and_json_elsewhere(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    on_terminal = Log(Sink(theirs), level="info", format="auto")
    in_file = Log(Sink(str(tmp_path / "log")), level="info", format="auto")
    assert (on_terminal.format, in_file.format) == ("text", "json")
    on_terminal.close(5)
    in_file.close(5)
    os.close(ours)
    os.close(theirs)


def test_an_event_that_cannot_be_written_is_no_crash(tmp_path: Path) -> None:
    written = Written(tmp_path / "log", format="json")
    written.log.emit(Notice(object()))  # type: ignore[arg-type]
    [line] = written.lines()
    assert line.startswith("notice: no line could be made of it: TypeError(")


def test_a_full_disk_does_not_stop_the_log() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    sink = Sink(full)
    log = Log(sink, level="info", format="text")
    for _ in range(10):
        log.emit(Notice("x"))
    log.close(5)
    os.close(full)
    assert sink.dropped == 10


def test_a_loss_is_said_in_the_log_itself() -> None:
    read_fd, write_fd = os.pipe()
    sink = Sink(write_fd, queue_bytes=200_000)
    log = Log(sink, level="error", format="text", now=lambda: NOON)
    log.set_level("info")
    while not sink.dropped:
        log.emit(Notice("x" * 1000))
    text = b""
    while b"dropped" not in text:
        text += os.read(read_fd, 65536)
    log.close(5)
    assert b"warn  1 line of the event log dropped" in text
    os.close(read_fd)
    os.close(write_fd)


@trio_test
async def test_a_subscriber_gets_what_happens_from_now_on(tmp_path: Path) -> None:
    log = Written(tmp_path / "log", level="error").log
    log.emit(Notice("before"))
    got: list[Event] = []
    with log.subscribe() as events:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                got.extend([event async for event in events])

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            log.emit(Notice("first"))
            await trio.testing.wait_all_tasks_blocked()
            log.emit(Notice("second"))
            events.close()
    assert got == [Notice("first"), Notice("second")]
    log.emit(Notice("after"))
    log.close(5)


@trio_test
async def test_a_subscriber_gets_only_what_it_wants(tmp_path: Path) -> None:
    log = Written(tmp_path / "log").log
    with log.subscribe(lambda event: isinstance(event, Notice)) as events:
        log.emit(BackendOutput("web.1@1", "x"))
        log.emit(Notice("y"))
        log.close(5)
        assert [event async for event in events] == [Notice("y")]


@trio_test
async def test_a_slow_subscriber_is_told_what_it_missed_and_misses_nothing_of_a_reload(tmp_path: Path) -> None:
    log = Written(tmp_path / "log", level="error").log
    with log.subscribe() as events:
        for _ in range(SUBSCRIPTION_EVENTS + 50):
            log.emit(BackendOutput("web.1@1", "flood"))
        draining = BackendDraining("web", "web.1@1", 3, reload="r1")
        log.emit(draining)
        log.close(5)
        got = [event async for event in events]
    assert len(got) == SUBSCRIPTION_EVENTS + 2
    assert got[-2:] == [draining, LogDropped(50)]
