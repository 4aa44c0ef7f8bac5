"""`lbproxy plan` beside what a reload then does."""

import json
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from support.serve import Serving, serving
from support.web import web


def plan(lb: Serving, *args: str) -> dict[str, Any]:
    done = lb.cli("plan", "--json", *args)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def pids(lb: Serving, pool: str = "web") -> dict[str, int]:
    """By the name of the backend with its generation."""
    return {one["backend"]: one["pid"] for one in lb.backends(pool)}


def listeners(lb: Serving) -> set[str]:
    return {one["address"] for one in lb.status()["listeners"]}


def state(lb: Serving) -> object:
    """What a plan must leave as it is."""
    status = lb.status()
    pools = {name: (pool["generation"], pids(lb, name)) for name, pool in status["pools"].items()}
    return pools, status["listeners"], status["routes"], status["config"], lb.log().count("reload.started")


OLD = """
[pool.old]
command = "$brittle"
"""
NEW = """
[pool.new]
command = "$brittle"
reload = { min_ready = "0s" }
[[route]]
path = "/n"
pool = "new"
[[listener]]
address = "127.0.0.1:$port2"
pool = "new"
"""


def config(*, size: int, env: str, more: str) -> str:
    text = web(f'env = {{ A = "{env}" }}', size=size, more=more)
    return text.replace('name = "public"', 'name = "public"\npool = "web"')


def test_a_plan_is_what_the_reload_then_does(tmp_path: Path) -> None:
    with serving(config(size=3, env="1", more=OLD), tmp_path) as lb:
        lb.write_config(config(size=2, env="2", more=NEW))
        before, as_it_was = pids(lb), state(lb)
        planned = plan(lb, "--config-only")
        assert planned["would_fail"] is None
        made = planned["pools"]["web"]
        assert (made["because"], made["replaced"], made["stopped"]) == (
            *(["env", "size"], ["web.1@1", "web.2@1"]),
            ["web.3@1"],
        )
        assert made["memory"]["now_bytes"] > 3 * 2**20
        assert planned["memory"]["free_host_bytes"] > 0
        assert planned["expected_s"] is None, "no reload has been yet"
        taken = lb.ports["port2"]
        with closing(socket.socket()) as other:
            other.bind(("127.0.0.1", taken))
            other.listen()
            refused = plan(lb)["would_fail"]
            assert refused == f"cannot listen on 127.0.0.1:{taken}: address already in use"
            failed = lb.cli("reload", "--config-only")
            assert failed.returncode == 1
            assert f"{refused}; nothing has happened" in failed.stdout
        done = lb.cli("plan")
        assert done.stdout.splitlines()[0] == "listeners"
        lb.api("POST", "/v1/plan", {})
        (pools, *rest, _), (pools_before, *rest_before, _) = state(lb), as_it_was  # type: ignore[misc]
        assert (pools, rest) == (pools_before, rest_before), "a plan changes nothing"

        done = lb.cli("reload", "--config-only", "--json")
        assert done.returncode == 0, done.stdout
        verdicts = {
            one["pool"]: one for one in map(json.loads, done.stdout.splitlines()) if one["event"] == "reload.done"
        }
        for name, pool in planned["pools"].items():
            if pool["action"] != "removed":
                assert (verdicts[name]["result"], verdicts[name]["generation"]) == ("ok", pool["generation"])
                assert len(pids(lb, name)) == pool["size"]
                assert not set(pids(lb, name)) & set(pool["replaced"] + pool["stopped"])
        assert set(verdicts) == {name for name, pool in planned["pools"].items() if pool["action"] != "removed"}
        assert "old" not in lb.status()["pools"]
        assert not set(before.values()) & set(pids(lb).values())
        added = {one["address"] for one in planned["listeners"]["added"]}
        assert listeners(lb) == {f"127.0.0.1:{lb.port}", *added}
        assert [one["path"] for one in lb.status()["routes"]] == [one["path"] for one in planned["routes"]["added"]]

        # A size alone keeps the others, and the history says how long it takes.
        lb.write_config(lb.config.read_text().replace("size = 2", "size = 3"))
        planned = plan(lb, "--config-only")
        kept = planned["pools"]["web"]["kept"]
        before = pids(lb)
        assert (planned["pools"]["web"]["action"], kept, planned["pools"]["web"]["started"]) == (
            *("changed", ["web.1@2", "web.2@2"]),
            ["web.3@2"],
        )
        assert planned["pools"]["web"]["from_reloads"] == 1
        assert lb.cli("reload", "web", "--config-only").returncode == 0
        after = pids(lb)
        assert {name: after[name] for name in kept} == before
        assert set(after) == {*kept, "web.3@2"}


def test_a_comment_changes_nothing_and_what_is_in_hand_goes_on(tmp_path: Path) -> None:
    with serving(web('env = { A = "1" }'), tmp_path) as lb:
        lb.write_config(lb.config.read_text() + "# a remark\n")
        done = lb.cli("plan", "--config-only")
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, "nothing would change")
        planned = plan(lb)
        assert (planned["differs"], planned["pools"]["web"]["anyway"]) == (False, True)
        before = state(lb)
        with closing(lb.connect()) as kept:
            # A connection that is kept, and a request in hand: neither is touched.
            kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert kept.recv(65536).startswith(b"HTTP/1.1 200")
            kept.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + bytes(100000))
            lb.wait_until(lambda: sum(one["in_flight"] for one in lb.backends()) == 1)
            held = plan(lb)
            assert held["connections"] == held["pools"]["web"]["connections"]
            assert sum(held["connections"].values()) == 1
            assert lb.cli("reload", "--config-only").returncode == 0
            kept.sendall(bytes(100000))
            assert kept.recv(65536).startswith(b"HTTP/1.1 ")
        *same, reloads = state(lb)  # type: ignore[misc]
        *same_before, _ = before  # type: ignore[misc]
        same[3]["loaded_at"] = same_before[3]["loaded_at"] = ""
        assert same == same_before
        assert reloads == 1
        for event in ("backend.draining", "backend.stopped", "worker.exited"):
            assert f'"{event}"' not in lb.log()
        invalid(lb)
        during_a_reload(lb)


def invalid(lb: Serving) -> None:
    good = lb.config.read_text()
    lb.config.write_text(good + "wokers = 4\n")
    done = lb.cli("plan")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.endswith("1 error\n")
    assert "config.rejected" not in lb.log(), "a question is no reload"
    lb.config.write_text(good)
    done = lb.cli("plan", "nope")
    assert (done.returncode, done.stderr) == (2, "lbproxy: no pool 'nope' (there is: web)\n")


def during_a_reload(lb: Serving) -> None:
    """The new backends never come up, so the reload goes on for as long as the test wants."""
    good = lb.config.read_text()
    lb.config.write_text(good.replace("command = ", 'command = "sleep 1000" # '))
    with subprocess.Popen(lb.command("reload"), stdout=subprocess.DEVNULL) as reload:
        try:
            lb.wait_until(lambda: lb.status()["pools"]["web"]["reload"])
            found = plan(lb)
            assert found["running"].startswith("another reload is running (r2, reload of web by command")
            assert set(found["pools"]["web"]["replaced"]) >= {"web.1@1", "web.2@1"}
            assert lb.cli("plan").stdout.startswith("now: another reload is running (r2")
            assert lb.cli("abort").returncode == 0
            assert reload.wait(30) == 1
        finally:
            reload.kill()
