"""`GET /metrics` of a real lbproxy: its counts are those of the clients, and none goes back whatever dies."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.serve import Serving, serving
from support.ws import dial

CONFIG = """
[proxy]
workers = 2
[[listener]]
name = "public"
address = "127.0.0.1:$port"
pool = "web"
limits = { body_bytes = "1KiB" }
[[listener]]
name = "sessions"
address = "127.0.0.1:$port2"
pool = "ws"
[pool.web]
command = "$origin --port {port}"
size = 2
[pool.web.reload]
min_ready = "0s"
[pool.ws]
command = "$longlived --port {port}"
[pool.ws.reload]
min_ready = "0s"
[log]
access = "off"
"""
Labels = tuple[tuple[str, str], ...]
Values = dict[tuple[str, Labels], float]


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(CONFIG, tmp_path_factory.mktemp("metrics")) as lb:
        yield lb


def scrape(lb: Serving) -> Values:
    """Every sample by its name, without "lbproxy_", and its labels."""
    answer = lb.api("GET", "/metrics")
    assert answer.status == 200
    return {
        (sample.name.removeprefix("lbproxy_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def value(values: Values, name: str, **labels: str) -> float:
    return values.get((name, tuple(sorted(labels.items()))), 0.0)


def grown(before: Values, after: Values, name: str, **labels: str) -> float:
    return value(after, name, **labels) - value(before, name, **labels)


def backwards(before: Values, after: Values) -> list[tuple[str, Labels]]:
    """The counters and buckets that are smaller, or gone."""
    counters = [key for key in before if re.search("_(total|bucket|count|sum)$", key[0])]
    return [key for key in counters if key not in after or after[key] < before[key]]


def test_every_count_is_that_of_the_clients(lb: Serving) -> None:
    before = scrape(lb)
    for _ in range(5):
        assert lb.get("/").status == 200
    assert lb.request("POST", "/post", body=b"x" * 100).status == 200
    assert lb.request("POST", "/post", body=b"x" * 2000).status == 413
    assert lb.request("BREW", "/").status in (200, 405, 501)
    size = len(lb.get("/").body)
    after = scrape(lb)
    assert grown(before, after, "http_requests_total", pool="web", method="GET", code="200") == 6
    assert grown(before, after, "http_requests_total", pool="web", method="POST", code="200") == 1
    assert grown(before, after, "http_requests_total", pool="web", method="POST", code="413") == 1
    assert sum(after[key] - before.get(key, 0.0) for key in after if dict(key[1]).get("method") == "OTHER") == 1
    assert grown(before, after, "http_request_bytes_total", pool="web") == 100
    assert grown(before, after, "http_response_bytes_total", pool="web") >= 6 * size
    assert grown(before, after, "connections_total", listener="public") == 9
    assert grown(before, after, "http_request_duration_seconds_count", pool="web") == 9
    assert 0 < grown(before, after, "http_request_duration_seconds_sum", pool="web") < 10
    backends = [grown(before, after, "backend_requests_total", pool="web", backend=f"web.{slot}") for slot in (1, 2)]
    assert sum(backends) + 1 == 9, "413 has reached no backend"


@pytest.mark.peer("wrk")
def test_a_load_generator_and_lbproxy_count_alike(lb: Serving) -> None:
    before = scrape(lb)
    wrk = shutil.which("wrk")
    assert wrk is not None
    url = f"http://127.0.0.1:{lb.port}/"
    told = subprocess.run([wrk, "-t1", "-c8", "-d1s", url], capture_output=True, text=True, check=True).stdout
    lb.wait_until(lambda: value(scrape(lb), "connections", listener="public") == 0)
    after = scrape(lb)
    sent = int(re.search(r"(\d+) requests in", told)[1])  # type: ignore[index]
    # wrk leaves in the middle of what it has in hand: at most one request for each connection.
    counted = grown(before, after, "http_requests_total", pool="web", method="GET", code="200")
    assert sent <= counted <= sent + 8
    buckets = [
        (float(dict(labels)["le"]), number - before[name, labels])
        for (name, labels), number in after.items()
        if name == "http_request_duration_seconds_bucket" and ("pool", "web") in labels
    ]
    buckets.sort()
    assert [number for _, number in buckets] == sorted(number for _, number in buckets)
    assert buckets[-1] == (float("inf"), grown(before, after, "http_request_duration_seconds_count", pool="web"))
    web = lb.status()["pools"]["web"]
    assert web["requests_per_s"] > 0
    assert 0 < web["p50_s"] <= web["p99_s"] < 10


def test_hostile_text_stays_harmless(lb: Serving) -> None:
    before = scrape(lb)
    for method in (b"GE\xc3T", b'X"}', b"A" * 200, b"lbproxy_up", b"\x1b[2J"):
        with lb.connect() as sock:
            sock.sendall(method + b' /"\\\n# HELP HTTP/1.1\r\nHost: a"\\nb\r\n\r\n')
            while sock.recv(4096):
                pass
    with lb.connect() as sock:
        sock.sendall(b'X"\\{}! / HTTP/1.1\r\nHost: "}\\\r\nConnection: close\r\n\r\n')
        while sock.recv(4096):
            pass
    after = scrape(lb)
    assert {dict(labels)["method"] for name, labels in after if name == "http_requests_total"} <= {
        *("GET", "POST", "HEAD", "OTHER")
    }
    refused = grown(before, after, "http_requests_total", pool="", method="OTHER", code="400")
    assert refused >= 5


def test_a_websocket_counts_when_it_opens_and_when_it_closes(lb: Serving) -> None:
    before = scrape(lb)
    end = dial(lb.ports["port2"], "/ws")
    lb.wait_until(lambda: value(scrape(lb), "websockets", pool="ws") == 1)
    opened = scrape(lb)
    assert grown(before, opened, "http_requests_total", pool="ws", method="GET", code="101") == 1
    assert grown(before, opened, "websocket_closes_total", pool="ws", code="1000", by="client") == 0
    end.close()
    end.follow()
    end.sock.close()
    lb.wait_until(lambda: value(scrape(lb), "websockets", pool="ws") == 0)
    after = scrape(lb)
    assert grown(before, after, "http_requests_total", pool="ws", method="GET", code="101") == 1
    assert grown(before, after, "websocket_closes_total", pool="ws", code="1000", by="client") == 1
    assert sum(after[key] - before.get(key, 0.0) for key in after if key[0] == "websocket_closes_total") == 1


def test_no_counter_goes_back_over_kills_and_reloads(lb: Serving) -> None:
    before = scrape(lb)
    for turn in range(3):
        for _ in range(10):
            lb.get("/")
        counted = scrape(lb)
        assert backwards(before, counted) == []
        worker = lb.status()["workers"][turn % 2]["pid"]
        os.kill(worker, signal.SIGKILL)
        assert backwards(counted, scrape(lb)) == []
        assert lb.cli("reload").returncode == 0
        before = scrape(lb)
        assert backwards(counted, before) == []
        for pool in ("web", "ws"):
            assert grown(counted, before, "reloads_total", pool=pool, result="ok") == 1
            assert grown(counted, before, "reload_duration_seconds_count", pool=pool, result="ok") == 1
    assert value(before, "config_last_reload_successful") == 1
    assert value(before, "generation", pool="web") == 4
    text = lb.config.read_text()
    lb.config.write_text(text.replace("size", "sise"))
    assert lb.cli("reload").returncode == 78
    assert value(scrape(lb), "config_last_reload_successful") == 0
    lb.config.write_text(text)


def test_a_crash_and_the_start_after_it_show(lb: Serving) -> None:
    before = scrape(lb)
    os.kill(lb.backends()[0]["pid"], signal.SIGKILL)
    lb.wait_until(lambda: grown(before, scrape(lb), "backend_start_seconds_count", pool="web") == 1)
    after = scrape(lb)
    assert grown(before, after, "backend_restarts_total", pool="web", reason="crash") == 1
    assert grown(before, after, "probes_total", pool="web", result="passed") >= 1
    lb.wait_until(lambda: value(scrape(lb), "backends", pool="web", state="ready") == 2)


def test_processes_show_their_cpu_time_and_memory(lb: Serving) -> None:
    def is_seen() -> bool:
        values = scrape(lb)
        names = [("backend_resident_memory_bytes", {"pool": "web", "backend": f"web.{slot}"}) for slot in (1, 2)]
        names += [("worker_resident_memory_bytes", {"worker": worker}) for worker in ("1", "2")]
        return all(value(values, name, **labels) > 1e6 for name, labels in names)

    lb.wait_until(is_seen)
    values = scrape(lb)
    assert value(values, "worker_cpu_seconds_total", worker="1") > 0
    assert value(values, "backend_cpu_seconds_total", pool="web", backend="web.1") > 0
    lb.wait_until(lambda: all(backend["cpu"] is not None for backend in lb.backends()))
    assert all(backend["resident_memory_bytes"] > 1e6 for backend in lb.backends())


@pytest.mark.peer("promtool")
def test_promtool_finds_nothing_to_say(lb: Serving, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None
    body = lb.api("GET", "/metrics").body
    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
