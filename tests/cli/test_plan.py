"""`lbproxy plan` against canned answers. Against a real lbproxy: tests/e2e/test_plan.py."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_control import FakeControl, fake_control, refusal
from support.plan_sample import NOTHING

from lbproxy.cli.main import run


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        yield control


def test_the_arguments_are_those_of_a_reload(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    control.answers["POST /v1/plan"] = NOTHING
    assert run(["plan", "web", "api", "--config-only", "--control", control.path]) == 0
    assert control.asked == [("POST", "/v1/plan", {"pools": ["web", "api"], "config_only": True})]
    assert capsys.readouterr().out.startswith("nothing would change\n")
    assert run(["plan", "-q", "--control", control.path]) == 0
    assert capsys.readouterr().out == ""


def test_json_is_the_document(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    control.answers["POST /v1/plan"] = NOTHING
    assert run(["plan", "--json", "--control", control.path]) == 0
    assert json.loads(capsys.readouterr().out) == NOTHING


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (refusal(422, "lb.toml:1:1: error: no\n1 error", 78), 78, "lb.toml:1:1: error: no\n1 error\n"),
        (refusal(404, "no pool 'x' (there is: web)", 2), 2, "lbproxy: no pool 'x' (there is: web)\n"),
    ],
)
def test_a_refusal_has_its_exit_code(
    answer: object, code: int, text: str, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    control.answers["POST /v1/plan"] = answer  # type: ignore[assignment]
    assert run(["plan", "--control", control.path]) == code
    assert capsys.readouterr() == ("", text)


def test_without_a_running_lbproxy_it_is_3(tmp_path: Path) -> None:
    assert run(["plan", "--control", str(tmp_path / "none")]) == 3
