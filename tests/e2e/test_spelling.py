"""One fact has one spelling: in the log, in `reload --json`, in `status --json` and in `logs --json`."""

import json
from pathlib import Path
from typing import Any

from support.serve import Serving, serving
from support.web import web


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line for line in text.splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]


def logged(lb: Serving) -> list[dict[str, Any]]:
    return [{key: value for key, value in event.items() if key != "level"} for event in events_of(lb.log())]


def floats_of(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [one for part in value.values() for one in floats_of(part)]
    if isinstance(value, list):
        return [one for part in value for one in floats_of(part)]
    return [value] if isinstance(value, float) else []


def test_the_command_says_of_a_reload_what_the_log_says_of_it(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb:
        done = lb.cli("reload", "--json")
        lb.write_config(web('env = { BREAK = "import" }'))
        broken = lb.cli("reload", "--json")
        assert (done.returncode, broken.returncode) == (0, 5)
        told = events_of(done.stdout + broken.stdout)
        lb.wait_until(lambda: sum(event["event"] == "reload.finished" for event in logged(lb)) == 2)
        in_log = logged(lb)
        assert [event for event in told if event not in in_log] == []
        of_reloads = [event for event in in_log if "reload" in event and event["event"] != "reload.finished"]
        assert [event for event in of_reloads if event not in told] == []
        assert [one for one in floats_of(in_log) if one != round(one, 3)] == []

        status = json.loads(lb.cli("status", "--json").stdout)
        names = [one["backend"] for one in status["pools"]["web"]["backends"]]
        assert names == ["web.1@2", "web.2@2"] == sorted({event["backend"] for event in told if _is_proof(event)})
        rolled_back = told[-1]
        assert (rolled_back["result"], rolled_back["from_generation"]) == ("rolled_back", 2)
        assert status["pools"]["web"]["generation"] == rolled_back["from_generation"], "that one serves"
        lines = [json.loads(line) for line in lb.cli("logs", "--json").stdout.splitlines()]
        output = [event for event in in_log if event["event"] == "backend.output"]
        facts = ("time", "backend", "line")
        assert [[one[fact] for fact in facts] for one in lines if "listens" in one["line"]] == [
            [one[fact] for fact in facts] for one in output if "listens" in one["line"]
        ]
        assert {line["backend"] for line in lines} <= {f"web.{slot}@{gen}" for slot in (1, 2) for gen in (1, 2, 3)}


def _is_proof(event: dict[str, Any]) -> bool:
    return event["event"] == "backend.proved"


def test_json_is_written_without_blanks_everywhere(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        for arguments in (["status", "--json"], ["logs", "--json"], ["reload", "--json"]):
            for line in lb.cli(*arguments).stdout.splitlines():
                assert line == json.dumps(json.loads(line), separators=(",", ":"))
        assert b'": ' not in lb.api("GET", "/v1/status").body
        started = next(line for line in lb.log().splitlines() if "serve.started" in line)
        assert started == json.dumps(json.loads(started), separators=(",", ":"))
