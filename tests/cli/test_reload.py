import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_control import FakeControl, Handler, fake_control, lines, refusal

from lbproxy.cli.main import run
from lbproxy.telemetry import events as e
from lbproxy.telemetry.text import event_json

NOON = 1767268800.0
STARTED = event_json(e.ReloadStarted("r1", "command", ("web",)), NOON)
READY = event_json(e.BackendReady("web", "web.1@7", 0.42, reload="r1"), NOON)
STOPPED = event_json(e.BackendStopped("web", "web.1@6", "TERM", reload="r1"), NOON)


def done(pool: str, result: str = "ok", why: str | None = None, output: tuple[str, ...] = ()) -> dict[str, Any]:
    event = e.ReloadDone(
        reload="r1",
        pool=pool,
        result=result,
        generation=7,
        from_generation=6,
        duration_s=41.2,
        requests=24318,
        failed=0,
        cut=0,
        websockets_closed=31,
        why=why,
        output=output,
    )
    return event_json(event, NOON)


def finished(exit_code: int = 0, text: str = "") -> dict[str, Any]:
    return event_json(e.ReloadFinished("r1", exit_code, text), NOON)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        yield control


def test_a_reload_is_told_in_lines_and_ends_with_its_verdict(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    control.answers["POST /v1/reload"] = lines(STARTED, READY, STOPPED, done("web"), finished())
    assert run(["reload", "--control", control.path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-01-01T12:00:00.000Z info  reload of web started (command)",
        "2026-01-01T12:00:00.000Z info  web.1@7 ready after 0.4s",
        "2026-01-01T12:00:00.000Z info  web.1@6 stopped (TERM)",
        "reloaded web to generation 7 in 41.2s: 24318 requests served meanwhile, 0 failed, 0 connections cut",
    ]


def test_what_is_asked_for_reaches_control(control: FakeControl) -> None:
    control.answers["POST /v1/reload"] = lines(done("web"), finished())
    run(["reload", "--control", control.path])
    run(["reload", "web", "api", "--config-only", "--control", control.path])
    assert [values for _, _, values in control.asked] == [
        {"pools": [], "config_only": False},
        {"pools": ["web", "api"], "config_only": True},
    ]


def test_the_verdicts_are_the_last_lines_whatever_comes_between(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    control.answers["POST /v1/reload"] = lines(STARTED, done("web"), READY, done("api"), READY, finished())
    assert run(["reload", "--control", control.path]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[-2:]] == ["reloaded", "reloaded"]
    assert run(["reload", "--json", "--control", control.path]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(values["event"], values.get("pool")) for values in events[-2:]] == [
        ("reload.done", "web"),
        ("reload.done", "api"),
    ]
    assert "reload.finished" not in [values["event"] for values in events]


def test_a_rollback_says_why_and_shows_the_last_output(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = done("web", "rolled_back", "web.1@7: exit code 1", ("Traceback", "Boom \x1b[2J"))
    control.answers["POST /v1/reload"] = lines(STARTED, failed, finished(5, "web serves generation 6"))
    assert run(["reload", "--control", control.path]) == 5
    assert capsys.readouterr().out.splitlines()[1:] == [
        "web.1@7 wrote last:",
        "    | Traceback",
        "    | Boom \\x1b[2J",
        "web serves generation 6",
        "rolled back web to generation 6 in 41.2s (web.1@7: exit code 1): 24318 requests served meanwhile, 0 failed, "
        "0 connections cut",
    ]


@pytest.mark.parametrize(("result", "exit_code"), [("failed", 6), ("aborted", 1), ("rolled_back", 5), ("ok", 0)])
def test_the_exit_code_is_the_one_that_control_found(control: FakeControl, result: str, exit_code: int) -> None:
    control.answers["POST /v1/reload"] = lines(done("web", result), finished(exit_code))
    assert run(["reload", "--control", control.path, "-q"]) == exit_code


def test_quiet_leaves_the_verdict(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    control.answers["POST /v1/reload"] = lines(STARTED, READY, done("web"), finished())
    assert run(["reload", "-q", "--control", control.path]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "error", "exit_code"),
    [
        (409, "another reload is running", 8),
        (404, "no pool 'wbe'", 2),
        (422, "lb.toml:1:1: error: x\n1 error", 78),
        (501, "not supported yet", 1),
    ],
)
def test_a_refusal_is_said_and_has_its_exit_code(
    control: FakeControl, capsys: pytest.CaptureFixture[str], status: int, error: str, exit_code: int
) -> None:
    control.answers["POST /v1/reload"] = refusal(status, error, exit_code)
    assert run(["reload", "--control", control.path]) == exit_code
    assert error in capsys.readouterr().err


def test_a_plan_that_fails_before_any_pool_says_so(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    control.answers["POST /v1/reload"] = lines(STARTED, finished(1, "port 80 is in use; nothing has happened"))
    assert run(["reload", "--control", control.path]) == 1
    assert capsys.readouterr().err == "lbproxy: port 80 is in use; nothing has happened\n"


def test_time_that_is_over_is_said_while_the_reload_goes_on(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    over = threading.Event()

    def never_ends(handler: Handler) -> None:
        handler.begin()
        handler.line(STARTED)
        over.wait(10)

    control.answers["POST /v1/reload"] = never_ends
    assert run(["reload", "--timeout", "50ms", "--control", control.path]) == 7
    assert capsys.readouterr().err == "lbproxy: the reload takes longer and goes on: see lbproxy status\n"
    over.set()


@pytest.mark.parametrize("timeout", ["5", "soon", "0s", "-1s"])
def test_a_timeout_that_is_no_duration_is_a_usage_error(timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reload", "--timeout", timeout]) == 2
    assert "--timeout" in capsys.readouterr().err


def test_no_wait_returns_when_the_reload_has_begun(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    over = threading.Event()

    def never_ends(handler: Handler) -> None:
        handler.begin()
        handler.line(STARTED)
        over.wait(10)

    control.answers["POST /v1/reload"] = never_ends
    assert run(["reload", "--no-wait", "--control", control.path]) == 0
    assert re.fullmatch(r"\S+ info  reload of web started \(command\)\n", capsys.readouterr().out)
    over.set()


def test_no_wait_still_knows_a_refusal(control: FakeControl) -> None:
    control.answers["POST /v1/reload"] = refusal(409, "another reload is running", 8)
    assert run(["reload", "--no-wait", "--control", control.path]) == 8


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_connection_that_breaks_in_the_middle_is_said(
    control: FakeControl, capsys: pytest.CaptureFixture[str], ends_well: bool
) -> None:
    def breaks(handler: Handler) -> None:
        handler.begin()
        handler.line(STARTED)
        handler.line(done("web"))
        if ends_well:
            handler.end()

    control.answers["POST /v1/reload"] = breaks
    assert run(["reload", "--control", control.path]) == 1
    assert capsys.readouterr().err.startswith("lbproxy: the connection to lbproxy broke during the reload: ")


def test_events_of_a_newer_lbproxy_are_passed_over_in_text_and_kept_in_json(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    control.answers["POST /v1/reload"] = lines({"event": "backend.sang"}, done("web"), finished())
    assert run(["reload", "--control", control.path]) == 0
    assert "sang" not in capsys.readouterr().out
    run(["reload", "--json", "--control", control.path])
    assert "sang" in capsys.readouterr().out
