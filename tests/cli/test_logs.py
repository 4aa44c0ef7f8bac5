import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_control import FakeControl, Handler, fake_control, lines, refusal

from lbproxy.cli.main import run

LINE = {"time": "2026-01-01T12:00:00.000Z", "backend": "web.3", "generation": 7, "line": "hello \x1b[2J"}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        control.answers["GET /v1/logs"] = lines(LINE)
        yield control


def test_a_line_names_its_backend_and_cannot_move_the_cursor(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["logs", "--control", control.path]) == 0
    assert capsys.readouterr().out == "2026-01-01T12:00:00.000Z web.3@7 | hello \\x1b[2J\n"


def test_an_access_line_stands_for_itself(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    control.answers["GET /v1/logs"] = lines({"time": "x", "line": '127.0.0.1 - - "GET /"'})
    assert run(["logs", "access", "--control", control.path]) == 0
    assert capsys.readouterr().out == '127.0.0.1 - - "GET /"\n'


def test_json_is_an_object_a_line(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["logs", "--json", "--control", control.path]) == 0
    assert json.loads(capsys.readouterr().out) == LINE


def test_what_is_asked_for_reaches_control(control: FakeControl) -> None:
    run(["logs", "--control", control.path])
    run(["logs", "web.3", "-n", "5", "--gen", "7", "-f", "--control", control.path])
    assert [path for _, path, _ in control.asked] == [
        "/v1/logs?n=100",
        "/v1/logs?n=5&source=web.3&gen=7&follow=1",
    ]


def test_a_source_that_is_not_there_is_said(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    control.answers["GET /v1/logs"] = refusal(404, "no pool or backend 'wbe'", 2)
    assert run(["logs", "wbe", "--control", control.path]) == 2
    assert capsys.readouterr().err == "lbproxy: no pool or backend 'wbe'\n"


def test_a_connection_that_breaks_is_said(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(handler: Handler) -> None:
        handler.begin()
        handler.line(LINE)

    control.answers["GET /v1/logs"] = breaks
    assert run(["logs", "-f", "--control", control.path]) == 1
    assert capsys.readouterr().err.startswith("lbproxy: the connection broke: ")
