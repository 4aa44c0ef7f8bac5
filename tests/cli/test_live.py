import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.fake_control import FakeControl, fake_control, lines

from lbproxy.cli.client import ControlClient
from lbproxy.cli.live import LiveBlock, Progress
from lbproxy.telemetry import events as e
from lbproxy.telemetry.text import event_json


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        yield control


def test_each_backend_has_one_row_that_follows_it() -> None:
    clock = iter(range(100))
    progress = Progress(now=lambda: float(next(clock)))
    progress.feed(e.ReloadStarted("r1", "command", ("web",)))
    progress.feed(e.BackendStarting("web", "web.1@7", 44, "127.0.0.1:1"))
    assert progress.rows() == [("web.1@7", "starting, 1.0s")]
    progress.feed(e.BackendReady("web", "web.1@7", 0.42))
    progress.feed(e.BackendDraining("web", "web.1@6", 12))
    assert progress.rows() == [("web.1@7", "ready after 0.4s"), ("web.1@6", "draining, 12 in hand, 1.0s")]
    progress.feed(e.BackendProved("web", "web.1@7", 1.5))
    progress.feed(e.BackendDrained("web", "web.1@6", 2.0, 1))
    assert progress.rows() == [("web.1@7", "proved after 1.5s"), ("web.1@6", "drained in 2.0s, 1 cut")]
    progress.feed(e.BackendStopped("web", "web.1@6", "TERM"))
    assert progress.rows()[1] == ("web.1@6", "stopped (TERM)")
    assert progress.title().startswith("reload of web started (command)  ")


def status_of(**backends: dict[str, Any]) -> dict[str, Any]:
    """A status document; the backends by slot, as `web_1`."""
    rows = [{"id": name.replace("_", "."), "generation": 6, **facts} for name, facts in backends.items()]
    return {"pools": {"web": {"backends": rows}}}


def test_what_is_left_to_drain_and_until_when_is_what_status_says() -> None:
    progress = Progress(now=lambda: 0.0)
    progress.feed(e.BackendDraining("web", "web.1@6", 12))
    progress.learn(status_of(web_1={"in_flight": 3, "drain_left_s": 26.02}))
    assert progress.rows() == [("web.1@6", "draining, 3 in hand, 0.0s, 26.0s more at most")]
    progress.learn(status_of(web_1={"in_flight": 0, "drain_left_s": 26.0}))
    assert progress.rows() == [("web.1@6", "draining, 0 in hand, 0.0s")]
    progress.feed(e.BackendDrained("web", "web.1@6", 2.0, 0))
    progress.learn(status_of(web_1={"why": "told to end by TERM, KILL in 9.0s"}))
    assert progress.rows() == [("web.1@6", "drained in 2.0s: told to end by TERM, KILL in 9.0s")]


def test_a_starting_backend_says_what_it_waits_for() -> None:
    progress = Progress(now=lambda: 0.0)
    progress.feed(e.BackendStarting("web", "web.1@6", 44, "127.0.0.1:1"))
    progress.learn(status_of(web_1={"why": "GET /healthz answered 503 (3.0s of 60s)"}))
    assert progress.rows() == [("web.1@6", "starting: GET /healthz answered 503 (3.0s of 60s)")]


def test_the_title_has_the_time_and_how_far_each_pool_is() -> None:
    clock = iter([0.0, 0.0, 0.0, 12.34])
    progress = Progress(now=lambda: next(clock))
    progress.feed(e.ReloadStarted("r1", "command", ("web", "api"), sizes=(4, 2)))
    progress.feed(e.BackendProved("web", "web.1@7", 1.5))
    progress.feed(e.BackendProved("web", "web.2@7", 1.5))
    assert progress.title() == "reload of web, api started (command)  12.3s  web 2 of 4  api 0 of 2"


def test_where_there_is_little_room_the_finished_backends_are_one_line() -> None:
    progress = Progress(now=lambda: 0.0)
    for slot in range(1, 13):
        progress.feed(e.BackendProved("web", f"web.{slot}@7", 1.5))
        progress.feed(e.BackendStopped("web", f"web.{slot}@6", "TERM"))
    progress.feed(e.BackendStarting("web", "web.13@7", 44, "127.0.0.1:1"))
    assert len(progress.rows()) == 25
    assert progress.rows(10) == [("", "12 proved, 12 stopped"), ("web.13@7", "starting, 0.0s")]
    for slot in range(14, 20):
        progress.feed(e.BackendDraining("web", f"web.{slot}@6", 1))
    assert len(progress.rows(5)) == 5
    assert progress.rows(5)[-1] == ("", "and 4 more")


def test_a_rollback_is_a_note_and_its_backends_say_how_they_ended() -> None:
    progress = Progress(now=lambda: 0.0)
    progress.feed(e.BackendNotReady("web", "web.1@7", "probe: 500", ()))
    progress.feed(e.BackendExited("web", "web.2@7", 44, "exit code 1", None, ()))
    progress.feed(e.BackendTakenBack("web", "web.1@6"))
    progress.feed(e.BackendStopped("web", "web.3@7", "KILL", why="it did not end within 10s of TERM"))
    progress.feed(e.ReloadRollingBack("r1", "web", "probe: 500"))
    progress.feed(e.Notice("proxy.control has changed", reload="r1"))
    assert progress.rows() == [
        ("web.1@7", "probe: 500"),
        ("web.2@7", "exit code 1"),
        ("web.1@6", "taken back"),
        ("web.3@7", "stopped (KILL): it did not end within 10s of TERM"),
    ]
    assert [note for note, _ in progress.notes] == ["web: rolling back: probe: 500", "proxy.control has changed"]


@pytest.mark.parametrize("width", [40, 80])
def test_the_block_is_never_taller_than_the_terminal(control: FakeControl, width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=14)
    block = LiveBlock(ControlClient(control.path), colored=False, console=console)
    block.show({}, e.ReloadRollingBack("r1", "web", "a long reason " * 20))
    for slot in range(1, 13):
        block.show({}, e.BackendStarting("web", f"web.{slot}@7", 44, "127.0.0.1:1"))
        block.show({}, e.BackendDraining("web", f"web.{slot}@6", 1))
    assert len(console.render_lines(block._draw())) == 13


def test_the_block_is_drawn_on_a_terminal(control: FakeControl) -> None:
    screen = io.StringIO()
    block = LiveBlock(
        ControlClient(control.path), colored=False, console=Console(file=screen, force_terminal=True, width=80)
    )
    block.start()
    block.show({}, e.ReloadStarted("r1", "command", ("web",)))
    block.show({}, e.BackendReady("web", "web.1@7", 0.42))
    block.show({"event": "backend.sang"}, None)
    block.end()
    drawn = screen.getvalue()
    assert "reload of web started (command)" in drawn
    assert "web.1@7" in drawn
    assert "ready after 0.4s" in drawn


def test_on_a_terminal_reload_shows_the_block_and_then_the_verdict(control: FakeControl) -> None:
    done = e.ReloadDone("r1", "web", "ok", 7, 6, 41.2, 24318, 0, 0, 31)
    happened = [
        e.ReloadStarted("r1", "command", ("web",)),
        e.BackendReady("web", "web.1@7", 0.42, reload="r1"),
        done,
        e.ReloadFinished("r1", 0, ""),
    ]
    control.answers["POST /v1/reload"] = lines(*map(event_json, happened))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lbproxy.cli.main", "reload", "--control", control.path]
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "200"}) as process:
        assert process.wait(20) == 0
    os.close(theirs)
    drawn = b""
    while not drawn.endswith(b"0 connections cut\x1b[0m\r\n"):
        drawn += os.read(ours, 65536)
    os.close(ours)
    assert b"ready after 0.4s" in drawn
    assert b" info " not in drawn
