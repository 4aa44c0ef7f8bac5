import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_control import FakeControl, fake_control
from support.status_sample import STATUS

from lbproxy.cli.main import run


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        control.answers["GET /v1/status"] = copy.deepcopy(STATUS)
        yield control


def degrade(control: FakeControl) -> None:
    answer = control.answers["GET /v1/status"]
    assert isinstance(answer, dict)
    answer["pools"]["web"]["ready"] = 1
    answer["pools"]["web"]["backends"][1]["state"] = "backoff"


def test_the_table_shows_what_runs(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--control", control.path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "edge-1  pid 4102  up 12.5s  lb.toml as of 2026-01-01T12:00:00Z",
        "listener public  0.0.0.0:8080  http -> web",
        "worker 1  pid 4103  serving  12 connections",
        "",
        "pool web  generation 7  2/2 ready  123 requests",
        "  BACKEND  STATE  PID   ADDRESS          UP    RESTARTS  IN FLIGHT                   REQUESTS",
        "  web.1@7  ready  4121  127.0.0.1:41001  9.1s  0         3 (1 request, 2 websocket)  31",
        "  web.2@7  ready  -     -                -     0         0                           31",
        "",
        "pool api  generation 1  1/1 ready  0 requests",
        "  BACKEND  STATE  PID   ADDRESS          UP    RESTARTS  IN FLIGHT                   REQUESTS",
        "  web.1@7  ready  4121  127.0.0.1:41001  9.1s  0         3 (1 request, 2 websocket)  31",
    ]


def test_a_draining_backend_shows_what_is_left_and_how_long_that_may_take(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = control.answers["GET /v1/status"]
    assert isinstance(answer, dict)
    for backend in answer["pools"]["web"]["backends"]:
        backend |= {"state": "draining", "drain_left_s": 7.25}
    assert run(["status", "--control", control.path, "web"]) == 0
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert "draining" in rows[0]
    assert "  3 (1 request, 2 websocket), 7.2s at most  31" in rows[0]
    assert "at most" not in rows[1], "nothing is left"


def test_fewer_ready_than_wanted_is_degraded(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    degrade(control)
    assert run(["status", "--control", control.path]) == 4
    assert "pool web  generation 7  1/2 ready  degraded" in capsys.readouterr().out


def test_a_pool_that_is_well_is_well_whatever_the_others_are(control: FakeControl) -> None:
    degrade(control)
    assert run(["status", "api", "--control", control.path, "-q"]) == 0
    assert run(["status", "web", "--control", control.path, "-q"]) == 4


def test_json_is_what_control_says(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--json", "--control", control.path]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS
    assert run(["status", "api", "--json", "--control", control.path]) == 0
    assert list(json.loads(capsys.readouterr().out)["pools"]) == ["api"]


def test_quiet_says_nothing(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-q", "status", "--control", control.path]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_pool_that_is_not_there_is_a_usage_error(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "wbe", "--control", control.path]) == 2
    assert capsys.readouterr().err == "lbproxy: no pool 'wbe' (there is: web, api)\n"


def test_nobody_there_is_not_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nobody.sock"
    assert run(["status", "--control", str(path)]) == 3
    assert capsys.readouterr().err == f"lbproxy: not running: nobody answers at {path}\n"


def test_states_are_colored_when_asked_for(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    degrade(control)
    run(["status", "web", "--control", control.path, "--color", "always"])
    out = capsys.readouterr().out
    assert "\x1b[31m1/2 ready\x1b[0m" in out
    assert "\x1b[31mbackoff\x1b[0m" in out
