"""`lbproxy status` and the document behind it (CONTRACT.md 3)."""

import contextlib
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serve import Serving, serving
from support.web import web


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(web(proxy='name = "edge-1"', workers=2), tmp_path_factory.mktemp("status")) as lb:
        for _ in range(4):
            lb.get("/whoami")
        yield lb


def test_the_document_has_the_shape_of_the_contract(lb: Serving) -> None:
    done = lb.cli("status", "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert (answer["version"], answer["name"], answer["pid"]) == (1, "edge-1", lb.pid)
    assert answer["uptime_s"] > 0
    assert answer["config"]["path"] == str(lb.config)
    assert answer["config"]["loaded_at"].endswith("Z")
    assert [worker["id"] for worker in answer["workers"]] == [1, 2]
    for worker in answer["workers"]:
        assert worker["state"] == "serving"
        assert {"pid", "connections", "express"} <= set(worker)
        assert set(worker["express"]) == {"served", "phases", "handed_over", "longest_turn_s", "longest_batch_s"}
    (listener,) = answer["listeners"]
    expected = {"name": "public", "address": f"127.0.0.1:{lb.port}", "mode": "http", "pool": "web"}
    assert {key: listener[key] for key in expected} == expected
    pool = answer["pools"]["web"]
    assert {key: pool[key] for key in ("generation", "size", "ready", "reloading")} == {
        "generation": 1,
        "size": 2,
        "ready": 2,
        "reloading": False,
    }
    assert pool["requests_total"] == sum(one["requests_total"] for one in pool["backends"]) >= 4
    for number, backend in enumerate(pool["backends"], 1):
        assert (backend["id"], backend["generation"], backend["state"]) == (f"web.{number}", 1, "ready")
        assert os.path.exists(f"/proc/{backend['pid']}")
        assert backend["address"].startswith("127.0.0.1:")
        assert backend["uptime_s"] > 0
        assert backend["restarts"] == backend["in_flight"] == 0
        assert isinstance(backend["leases"], dict)


def test_the_table_shows_every_backend(lb: Serving) -> None:
    text = lb.cli("status").stdout
    assert "pool web  generation 1  2/2 ready" in text
    assert "web.1@1  ready" in text
    assert "web.2@1  ready" in text


def test_one_pool_can_be_asked_for_and_an_unknown_one_is_refused(lb: Serving) -> None:
    assert lb.cli("status", "web").returncode == 0
    unknown = lb.cli("status", "wbe")
    assert unknown.returncode == 2
    assert "no pool 'wbe'" in unknown.stderr


def test_quiet_says_nothing_but_the_code(lb: Serving) -> None:
    done = lb.cli("status", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_options_are_taken_before_and_after_the_command(lb: Serving) -> None:
    for arguments in (["--control", lb.control, "status", "-q"], ["status", "-q", "--control", lb.control]):
        assert os.spawnv(os.P_WAIT, lb.command()[0], [*lb.command()[:3], *arguments]) == 0


def test_status_answers_within_150_ms(lb: Serving) -> None:
    """Of CPU, so that a busy machine does not decide."""
    took_s = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert lb.cli("status", "-q").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took_s) < 0.15, took_s


def test_in_flight_and_leases_are_shown_while_they_last(lb: Serving) -> None:
    with lb.connect() as client:
        client.sendall(b"GET /slow?s=5 HTTP/1.1\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: sum(one["in_flight"] for one in lb.backends()) == 1)
        assert [one["leases"].get("request", 0) for one in lb.backends() if one["in_flight"]] == [1]
        assert sum(worker["connections"] for worker in lb.status()["workers"]) == 1
    lb.wait_until(lambda: sum(one["in_flight"] for one in lb.backends()) == 0)


def test_two_workers_share_64_keep_alive_connections_and_neither_has_more_than_three_quarters(lb: Serving) -> None:
    """The kernel deals them out by a hash of both addresses, as a coin would. That one worker gets more than 48 of 64
    happens to 2.4 in 100,000 runs: 2 * sum(comb(64, n) for n in range(49, 65)) / 2**64.
    """
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(lb.connect()) for _ in range(64)]
        for client in clients:
            client.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        answer = json.loads(lb.cli("status", "--json").stdout)
        connections = [worker["connections"] for worker in answer["workers"]]
        assert sum(connections) == 64
        assert max(connections) <= 48
    lb.wait_until(lambda: sum(worker["connections"] for worker in lb.status()["workers"]) == 0)


def test_the_control_socket_answers_nonsense_politely(lb: Serving) -> None:
    assert lb.api("GET", "/v1/nothing").status == 404
    assert lb.api("GET", "/v1/reload").status == 405
    assert lb.api("POST", "/v1/reload", {"pools": "web"}).status == 400
    assert lb.api("GET", "/livez").status == 200
    assert lb.api("GET", "/readyz").status == 200
    assert lb.status()["pools"]["web"]["generation"] == 1


def test_a_pool_with_a_dead_backend_is_degraded(tmp_path: Path) -> None:
    restart = 'backoff = { first = "30s", max = "30s" }'
    with serving(web(restart=restart), tmp_path) as lb:
        os.kill(lb.backends()[0]["pid"], signal.SIGKILL)
        lb.wait_until(lambda: lb.backends()[0]["state"] == "backoff")
        done = lb.cli("status")
        assert done.returncode == 4
        assert "1/2 ready" in done.stdout
        assert "degraded" in done.stdout
        assert lb.backends()[0]["pid"] is None
