"""Attacks on HTTP/2, briefly: each is answered as it must be, and good clients are served beside them and after them.

How long the good ones wait is measured by loadtest/http2_attacks.py.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from support.http2_floods import ATTACKS, Outcome, no_reader, run
from support.raw_http2 import get, headers, raw_http2
from support.serve import Serving, serving

CONFIG = """
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
protocols = ["h2c", "http/1.1"]
timeouts = { header = "1s", body = "1s", idle = "1s" }
[pool.web]
command = "$origin --port {port}"
"""
PATIENCE_S = 10.0
AT_ONCE = 8
MOST_AT_BACKEND = 300  # of one connection: 100 streams at a time, and 200 resets in a second
MOST_GROWTH_BYTES = 60 << 20  # with 60 connections, of which some have 1 MiB in hand
ENDLESS = ("bodies that trickle", "padding")  # what moves is a client as any other, however slow
UNREAD = ("no reader", "pings without a reader")


def test_attacks_are_bounded_and_good_clients_are_served_beside_them(tmp_path: Path) -> None:
    with serving(CONFIG, tmp_path) as lb:
        a_flood_ends_its_connection_with_the_right_code_and_the_backend_sees_little_of_it(lb)
        what_is_begun_and_not_ended_has_the_limits_of_the_listener(lb)
        bodies_that_move_are_served_for_as_long_as_they_do(lb)
        a_client_that_reads_nothing_has_little_kept_for_it_and_is_closed(lb)
        assert "Traceback" not in lb.log()


def worker(lb: Serving) -> psutil.Process:
    return psutil.Process(lb.status()["workers"][0]["pid"])


def attacked(lb: Serving, names: list[str], seconds: float) -> dict[str, Outcome]:
    """Several at once, each with one connection."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [pool.submit(run, ATTACKS[name], lb.port, seconds, connections=1) for name in names]
        assert all(well_served(lb) for _ in range(10))
        return dict(zip(names, (one.result() for one in found), strict=True))


def well_served(lb: Serving) -> bool:
    with raw_http2(lb.port) as client:
        client.send(headers(1, get()))
        return client.verdict(1).status == lb.get("/").status == 200


def a_flood_ends_its_connection_with_the_right_code_and_the_backend_sees_little_of_it(lb: Serving) -> None:
    names = [name for name, attack in ATTACKS.items() if attack.codes]
    process, before = worker(lb), int(lb.get("/count").body)
    memory = process.memory_info().rss
    found = attacked(lb, names, PATIENCE_S)
    for name, outcome in found.items():
        assert outcome.ended == 1, (name, outcome)
        assert set(outcome.codes) <= ATTACKS[name].codes, (name, outcome)
    seen = int(lb.get("/count").body) - before
    assert seen < len(names) * MOST_AT_BACKEND / 2, seen
    assert worker(lb).pid == process.pid
    assert process.memory_info().rss - memory < MOST_GROWTH_BYTES
    lb.wait_until(lambda: not lb.backends()[0]["in_flight"])


def what_is_begun_and_not_ended_has_the_limits_of_the_listener(lb: Serving) -> None:
    names = [name for name, attack in ATTACKS.items() if not attack.codes and name not in ENDLESS + UNREAD]
    process = worker(lb)
    memory = process.memory_info().rss
    found = attacked(lb, names, PATIENCE_S)
    endless = {name for name, outcome in found.items() if not outcome.ended}
    assert endless <= {"heads that are refused", "table churn"}, found  # each of them is a request with its answer
    assert process.memory_info().rss - memory < MOST_GROWTH_BYTES
    lb.wait_until(lambda: not lb.backends()[0]["in_flight"])


def bodies_that_move_are_served_for_as_long_as_they_do(lb: Serving) -> None:
    for name, outcome in attacked(lb, list(ENDLESS), 2.5).items():
        assert not outcome.ended, (name, outcome)
    lb.wait_until(lambda: not lb.backends()[0]["in_flight"])


def a_client_that_reads_nothing_has_little_kept_for_it_and_is_closed(lb: Serving) -> None:
    process = worker(lb)
    memory = process.memory_info().rss
    with raw_http2(lb.port, receive_bytes=4096) as client:
        client.send(next(no_reader()))
        lb.wait_until(lambda: lb.backends()[0]["in_flight"] > 50)
        assert process.memory_info().rss - memory < MOST_GROWTH_BYTES
        lb.wait_until(lambda: not lb.status()["workers"][0]["connections"])
    lb.wait_until(lambda: not lb.backends()[0]["in_flight"])
