"""What is written down of each change, and what is left of it after a kill -9 of control and a new start."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from support.serve import Serving, serving
from support.web import web


def test_history_audit_and_generations_outlive_a_kill(tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    config = web('env = { A = "1" }', more=f'[log]\naudit_path = "{audit}"')
    with serving(config, tmp_path) as lb:
        lb.write_config(config.replace('A = "1"', 'A = "2"'))
        assert lb.cli("reload").returncode == 0
        assert lb.cli("scale", "web=3").returncode == 0
        assert lb.cli("scale", "web=0").returncode == 1
        assert lb.cli("pause", "web").returncode == 0
        assert lb.cli("unpause", "web").returncode == 0
        lb.signal(signal.SIGUSR2)
        lb.wait_until(lambda: lb.log().count('"event":"reload.finished"') == 3)
        assert lb.cli("rollback", "web").returncode == 0
        records = [json.loads(line) for line in lb.cli("history", "--json").stdout.splitlines()]
        assert [(one["verb"], one["result"], one["generation"]) for one in records] == [
            ("reload", "ok", 2),
            ("scale", "ok", 2),
            ("reload", "ok", 3),
            ("rollback", "ok", 4),
        ]
        assert records[0]["asked_by"]["uid"] == os.getuid()
        assert records[2]["asked_by"] == {"how": "USR2"}
        assert records[3]["same_as"] == 1
        assert {one["slot"] for one in records[0]["backends"]} == {1, 2}
        assert records[0]["peak_memory_bytes"] > 10_000_000
        assert (records[0]["held"], records[0]["longest_hold_s"], records[0]["websocket_closes"]) == (0, 0.0, {})
        assert "4 (as 1)" in lb.cli("history", "web", "-n", "1").stdout
        lb.wait_until(lambda: audit.read_text().count("\n") >= 7)  # a line is written when its command has its answer
        lines = [json.loads(line) for line in audit.read_text().splitlines()]
        assert [(line["command"], line["result"]) for line in lines] == [
            ("reload", "ok"),
            ("scale", "ok"),
            ("scale", "refused: web=0: at least 1 (pause web holds requests, stop ends all)"),
            ("pause", "done"),
            ("unpause", "done"),
            ("reload", "ok"),
            ("rollback", "ok"),
        ]
        assert {line["uid"] for line in lines} == {os.getuid(), None}
        lb.wait_until(lambda: saved(lb, "generations")["numbers"] == {"web": 4} and len(saved(lb, "history")) == 4)
        os.kill(lb.pid, signal.SIGKILL)
        lb.wait_until(lb.exited)
        lb.wait_nothing_left()
        lb.start({})
        lb.wait_ready()
        again = [json.loads(line) for line in lb.cli("history", "--json").stdout.splitlines()]
        assert again == records
        assert lb.status()["pools"]["web"]["generation"] == 5, (
            "another configuration than the last: the file has changed"
        )
        assert lb.cli("rollback", "web", "--to", "1").returncode == 0
        assert lb.cli("history", "nope").returncode == 2
        assert lb.stop() == 0  # what is still to be saved is written now
        for name in os.listdir(os.path.join(lb.state)):
            for file in os.listdir(os.path.join(lb.state, name)):
                Path(lb.state, name, file).write_text("{ broken")
        lb.start({})
        lb.wait_ready()
        lb.wait_until(lambda: lb.log().count(".json is ignored: ") == 2)
        assert lb.status()["pools"]["web"]["generation"] == 1
        assert lb.cli("history").stdout == "nothing was changed yet\n"


def saved(lb: Serving, name: str) -> Any:
    """What stands in a file of the state directory, which is written behind the answer."""
    (path,) = Path(lb.state).glob(f"*/{name}.json")
    return json.loads(path.read_text())["value"]
