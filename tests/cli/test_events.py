import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_control import FakeControl, Handler, fake_control, lines, refusal

from lbproxy.cli.main import run

TIME = "2026-01-01T12:00:00.000Z"
READY = {
    "text": "web.3@7 ready after 0.4s",
    "id": 5,
    "event": "backend.ready",
    "time": TIME,
    "pool": "web",
    "backend": "web.3@7",
    "after_s": 0.4,
    "level": "info",
}
NOTICE = {"id": 6, "event": "notice", "time": TIME, "text": "oh \x1b[2J", "level": "warning"}
UNKNOWN = {"id": 7, "event": "moon.full", "time": TIME, "text": "the moon\nis full", "level": "warning"}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        control.answers["GET /v1/events"] = lines(READY, NOTICE, UNKNOWN)
        yield control


def test_an_event_is_a_line_as_in_the_log_and_cannot_move_the_cursor(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["events", "--control", control.path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{TIME} info  web.3@7 ready after 0.4s",
        f"{TIME} warn  oh \\x1b[2J",
        f"{TIME} warn  the moon\\x0ais full",
    ]


def test_json_is_an_object_a_line(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["events", "--json", "--control", control.path]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [READY, NOTICE, UNKNOWN]


def test_what_is_asked_for_reaches_control(control: FakeControl) -> None:
    run(["events", "--control", control.path])
    run(["events", "-f", "--since", "10m", "--control", control.path])
    assert [path for _, path, _ in control.asked] == [
        "/v1/events?format=lines&follow=0&n=100",
        "/v1/events?format=lines&follow=1&since=600.0",
    ]


def test_a_time_that_is_none_is_a_usage_error(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["events", "--since", "10", "--control", control.path]) == 2
    assert "a duration such as" in capsys.readouterr().err


def test_a_connection_that_breaks_or_a_refusal_is_said(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(handler: Handler) -> None:
        handler.begin()
        handler.line(READY)

    control.answers["GET /v1/events"] = breaks
    assert run(["events", "-f", "--control", control.path]) == 1
    assert capsys.readouterr().err.startswith("lbproxy: the connection broke: ")
    control.answers["GET /v1/events"] = refusal(404, "there is no /v1/events", 1)
    assert run(["events", "--control", control.path]) == 1
    assert capsys.readouterr().err == "lbproxy: there is no /v1/events\n"
