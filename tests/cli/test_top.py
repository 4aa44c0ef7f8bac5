import copy
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_control import FakeControl, fake_control, lines, refusal
from support.serve import LBPROXY
from support.status_sample import STATUS
from support.terminal import Terminal, terminal

from lbproxy.cli.main import run
from lbproxy.telemetry import events as e
from lbproxy.telemetry.text import event_json

DONE = e.ReloadDone("r1", "web", "ok", 8, 7, 1.5, 10, 0, 0, 0)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        control.answers["GET /v1/status"] = copy.deepcopy(STATUS)
        happened = [e.ReloadStarted("r1", "command", ("web",)), DONE, e.ReloadFinished("r1", 0, "")]
        control.answers["POST /v1/reload"] = lines(*map(event_json, happened))
        control.answers["POST /v1/drain"] = refusal(409, "the last ready one: --force", 1)
        yield control


@pytest.fixture
def screen(control: FakeControl) -> Iterator[Terminal]:
    with terminal([*LBPROXY, "top", "--control", control.path]) as screen:
        screen.wait_for("q quit")
        yield screen


def posted(control: FakeControl) -> list[tuple[str, object]]:
    return [(path, values) for method, path, values in control.asked if method == "POST"]


def test_r_reloads_the_pool_of_the_selected_backend_when_confirmed(control: FakeControl, screen: Terminal) -> None:
    screen.press("r")
    screen.wait_for("reload web? y/n")
    screen.press("n")
    screen.press("r")
    screen.wait_for("reload web? y/n")
    assert posted(control) == []
    screen.press("y")
    screen.wait_for("reloaded web to generation 8 in 1.5s")
    assert posted(control) == [("/v1/reload", {"pools": ["web"]})]
    screen.press("q")
    assert screen.wait_end() == 0
    assert screen.is_as_before()


def test_d_drains_the_selected_backend_and_a_refusal_is_said(control: FakeControl, screen: Terminal) -> None:
    screen.press("\x1b[B")
    screen.wait_for("d drain web.2")
    screen.press("d")
    screen.wait_for("drain web.2? y/n")
    screen.press("y")
    screen.wait_for("the last ready one: --force")
    assert posted(control) == [("/v1/drain", {"backend": "web.2"})]


def test_ctrl_c_ends_it_and_leaves_the_terminal_as_it_was(screen: Terminal) -> None:
    screen.process.send_signal(signal.SIGINT)
    assert screen.wait_end() == 130
    assert screen.is_as_before()


def test_it_needs_a_terminal(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", "--control", control.path]) == 1
    assert capsys.readouterr().err.startswith("lbproxy: top needs a terminal")
