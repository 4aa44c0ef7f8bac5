"""What `lbproxy upgrade` asks for, shows, and ends with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_control import FakeControl, fake_control, lines

from lbproxy.cli.main import run
from lbproxy.telemetry import events as e
from lbproxy.telemetry.text import event_json

STARTED = event_json(e.UpgradeStarted("u1", "1.0"))
PROVED = event_json(e.UpgradeProved("u1", "2.0", 0.5, 4, 2))
DONE = event_json(e.UpgradeDone("u1", "ok", 0, "1.0", "2.0", 2.5))
FAILED = event_json(e.UpgradeDone("u1", "failed", 5, "1.0", "1.0", 2.5, "it failed its trial", ("Traceback", "boom")))


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        yield control


def upgrade(control: FakeControl, *events: Any, args: tuple[str, ...] = ()) -> int:
    control.answers["POST /v1/upgrade"] = lines(*events)
    return run(["upgrade", *args, "--control", control.path])


def test_the_last_line_is_the_verdict(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert upgrade(control, STARTED, PROVED, DONE, args=("--timeout", "5m", "--tunnels", "24h")) == 0
    assert [values for _, _, values in control.asked] == [{"timeout": "300s", "tunnels": "86400s"}]
    out = capsys.readouterr().out.splitlines()
    assert "lbproxy 2.0 has passed its trial after 0.5s and takes over 4 backends and 2 workers" in out[1]
    assert out[-1] == "upgraded lbproxy 1.0 to 2.0 in 2.5s"


def test_a_failed_trial_shows_its_output_and_says_that_nothing_has_happened(
    control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upgrade(control, STARTED, FAILED) == 5
    out = capsys.readouterr().out.splitlines()
    assert out[1:] == [
        "    | Traceback",
        "    | boom",
        "not upgraded, lbproxy 1.0 goes on as before: it failed its trial",
    ]


def test_json_is_the_events_themselves(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    assert upgrade(control, STARTED, DONE, args=("--json",)) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.startswith('{"event":"upgrade.') for line in out] == [True, True]


def test_without_waiting_it_returns_when_the_trial_is_passed(control: FakeControl) -> None:
    assert upgrade(control, STARTED, PROVED, args=("--no-wait",)) == 0
    assert upgrade(control, STARTED, FAILED, args=("--no-wait",)) == 5


@pytest.mark.parametrize(
    ("events", "words"),
    [((STARTED,), "the connection to lbproxy broke"), ((STARTED, PROVED), "lbproxy ended while it replaced itself")],
)
def test_an_end_without_a_verdict_is_a_failure(
    control: FakeControl, capsys: pytest.CaptureFixture[str], events: Any, words: str
) -> None:
    assert upgrade(control, *events) == 1
    assert words in capsys.readouterr().err
