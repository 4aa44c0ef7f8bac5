import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_control import FakeControl, fake_control, refusal
from support.serve import LBPROXY
from support.status_sample import STATUS
from support.terminal import terminal

from lbproxy.cli.options import Options
from lbproxy.cli.watch import StatusView


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        control.answers["GET /v1/status"] = copy.deepcopy(STATUS)
        yield control


def test_a_view_that_is_too_low_says_how_much_is_missing() -> None:
    view = StatusView(Options(color="never"))
    view.learn(STATUS)
    assert len(view.draw(120, 50).plain.split("\n")) == 12
    assert view.draw(120, 6).plain.split("\n")[-1] == "\u2026 7 more lines"


def test_status_is_drawn_every_second_until_q(control: FakeControl) -> None:
    with terminal([*LBPROXY, "status", "web", "-w", "--control", control.path]) as screen:
        screen.wait_for("123 requests", times=2)
        answer = control.answers["GET /v1/status"]
        assert isinstance(answer, dict)
        answer["pools"]["web"]["requests_total"] = 124
        screen.wait_for("124 requests")
        screen.press("q")
        assert screen.wait_end() == 0
        assert screen.is_as_before()
        assert "\x1b[?1049l" in screen.raw, "the screen from before is back"


def test_a_server_that_goes_away_ends_it_with_one_line(control: FakeControl) -> None:
    with terminal([*LBPROXY, "status", "-w", "--control", control.path]) as screen:
        screen.wait_for("123 requests")
        control.answers["GET /v1/status"] = refusal(500, "it is gone", 1)
        assert screen.wait_end() == 1
        assert screen.shown.endswith("lbproxy: it is gone\r\n")
        assert screen.is_as_before()


def test_without_a_terminal_it_is_one_document_after_the_other(control: FakeControl) -> None:
    command = [*LBPROXY, "status", "-w", "--json", "--control", control.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline()) for _ in range(2)] == [STATUS, STATUS]
        process.terminate()
