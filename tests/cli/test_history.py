"""`lbproxy history` as a table and as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_control import FakeControl, fake_control

from lbproxy.cli.main import run


def record(**more: Any) -> dict[str, Any]:
    return {
        "verb": "reload",
        "id": "r1",
        "pool": "web",
        "result": "ok",
        "started_at": "2026-01-01T12:00:00.000Z",
        "duration_s": 2.54,
        "asked_by": {"uid": 1000, "pid": 7, "how": "command"},
        "from_generation": 6,
        "generation": 7,
        "why": None,
        "requests": 100,
        "failed": 0,
        "cut": 0,
        **more,
    }


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        yield control


def test_the_table_has_a_line_for_each_record(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        record(),
        record(verb="rollback", generation=8, from_generation=7, same_as=6, asked_by={"how": "USR2"}),
        record(verb="drain", backend="web.3", from_generation=7, result="aborted", why="it was taken \x1b back"),
    ]
    control.answers["GET /v1/history"] = {"records": records}
    assert run(["history", "web", "-n", "3", "--control", control.path]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "STARTED",
        "VERB",
        "POOL",
        "GENERATION",
        "RESULT",
        "TOOK",
        "REQUESTS",
        "FAILED",
        "CUT",
        "BY",
        "WHY",
    ]
    assert [row.split("  ")[1].strip() for row in rows] == ["reload", "rollback", "drain"]
    assert "6 -> 7" in rows[0]
    assert "command uid 1000" in rows[0]
    assert "7 -> 8 (as 6)" in rows[1]
    assert "web.3" in rows[2]
    assert rows[2].endswith("it was taken \\x1b back")


def test_json_is_a_record_a_line(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    control.answers["GET /v1/history"] = {"records": [record(), record(id="r2")]}
    assert run(["history", "--json", "--control", control.path]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == ["r1", "r2"]


def test_nothing_yet_is_said(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    control.answers["GET /v1/history"] = {"records": []}
    assert run(["history", "--control", control.path]) == 0
    assert capsys.readouterr().out == "nothing was changed yet\n"
