"""What each verb asks control for, and its exit code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_control import FakeControl, fake_control, lines

from lbproxy.cli.main import run
from lbproxy.telemetry import events as e
from lbproxy.telemetry.text import event_json


def done(verb: str, result: str, exit_code: int) -> Any:
    verdict = e.ReloadDone("r1", "web", result, 7, 6, 1.0, 10, 0, 0, 0, verb=verb, same_as=5, size=6, backend="web.3")
    return lines(event_json(verdict), event_json(e.ReloadFinished("r1", exit_code, "")))


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        yield control


@pytest.mark.parametrize(
    ("args", "values"),
    [
        (["rollback", "web"], {"pool": "web", "to": None}),
        (["rollback", "web", "--to", "5"], {"pool": "web", "to": 5}),
        (["abort"], {"pool": None}),
        (["abort", "web"], {"pool": "web"}),
        (["resume", "web"], {"pool": "web"}),
        (["scale", "web=6"], {"pool": "web", "size": 6}),
        (["restart", "web.3"], {"backend": "web.3"}),
    ],
)
def test_what_is_asked_for_reaches_control(args: list[str], values: dict[str, Any], control: FakeControl) -> None:
    control.answers[f"POST /v1/{args[0]}"] = done(args[0], "ok", 0)
    assert run([*args, "--control", control.path]) == 0
    assert [asked for _, _, asked in control.asked] == [values]


@pytest.mark.parametrize(
    ("args", "verb", "result", "exit_code", "seen"),
    [
        (["abort"], "reload", "aborted", 1, 0),
        (["abort"], "reload", "failed", 6, 6),
        (["abort"], "reload", "ok", 0, 0),  # it was over
        (["rollback", "web"], "reload", "aborted", 1, 0),  # of a reload that stood half-way
        (["rollback", "web"], "rollback", "aborted", 1, 1),
        (["rollback", "web"], "rollback", "rolled_back", 5, 5),
        (["resume"], "reload", "paused", 9, 9),
        (["scale", "web=2"], "scale", "rolled_back", 5, 5),
    ],
)
def test_a_verb_ends_with_the_code_of_what_it_caused(
    args: list[str], verb: str, result: str, exit_code: int, seen: int, control: FakeControl
) -> None:
    control.answers[f"POST /v1/{args[0]}"] = done(verb, result, exit_code)
    assert run([*args, "--control", control.path]) == seen


@pytest.mark.parametrize("change", ["web", "web=", "=6", "web=x", "web=-1", "web=1.5"])
def test_a_size_must_be_a_number(change: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scale", change]) == 2
    assert capsys.readouterr().err == f"lbproxy: expected POOL=SIZE, such as web=6, got {change!r}\n"


@pytest.mark.parametrize(
    ("verb", "line"),
    [
        ("rollback", "rolled back web: generation 7 (as 5) serves in 1.0s: "),
        ("scale", "scaled web to 6 until the next reload in 1.0s: "),
        ("restart", "restarted web.3 in 1.0s: "),
    ],
)
def test_the_last_line_is_the_verdict(
    verb: str, line: str, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    control.answers[f"POST /v1/{verb}"] = done(verb, "ok", 0)
    assert run([verb, "web=6" if verb == "scale" else "web.1", "--control", control.path]) == 0
    assert capsys.readouterr().out.startswith(line)
