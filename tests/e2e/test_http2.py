"""HTTP/2 connections of clients against a real lbproxy: what operators see of them, and how they end."""

import json
import re
import time
from collections.abc import Iterator
from threading import Thread
from urllib.request import urlopen

import pytest
from support.http2 import Http2, http2
from support.over_tls import plain_only
from support.serve import Serving, serving
from support.web import web

pytestmark = plain_only

LISTENERS = """
[[listener]]
name = "h2c"
address = "127.0.0.1:$port2"
protocols = ["http/1.1", "h2c"]
limits = { body_bytes = "10MiB" }

[admin]
address = "127.0.0.1:$port3"

[log]
access_path = "access.log"
"""
NO_ERROR, CANCEL = 0, 8


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    config = web(more=LISTENERS, workers=1, command="$longlived")
    with serving(config, tmp_path_factory.mktemp("lb")) as running:
        yield running


@pytest.fixture
def client(lb: Serving) -> Iterator[Http2]:
    with http2(lb.ports["port2"]) as client:
        yield client


def rows(lb: Serving) -> list[dict]:
    done = lb.cli("connections", "--json")
    assert done.returncode == 0, done.stderr
    return [row for row in json.loads(done.stdout)["connections"] if row["listener"] == "h2c"]


def metric(lb: Serving, name: str) -> float:
    """The sum of a metric over the series that have this text in their labels."""
    with urlopen(f"http://127.0.0.1:{lb.ports['port3']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{name} ([0-9.]+)$", text, re.MULTILINE))


def test_the_list_of_connections_has_each_stream_and_close_ends_one_or_all(lb: Serving, client: Http2) -> None:
    assert client.get("/whoami").status == 200
    ((idle,),) = [rows(lb)]
    assert (idle["kind"], idle["backend"]) == ("idle", None)
    slow = [client.request("GET", "/slow?s=40") for _ in range(3)]
    lb.wait_until(lambda: len(rows(lb)) == 4 and all(row["backend"] for row in rows(lb)[1:]))
    connection, *streams = rows(lb)
    assert (connection["kind"], connection["id"]) == ("http2", idle["id"])
    assert [row["id"] for row in streams] == [f"{idle['id']}/{stream}" for stream in slow]
    assert {row["kind"] for row in streams} == {"request"}
    assert metric(lb, r'lbproxy_http2_streams\{listener="h2c"\}') == 3
    assert lb.cli("close", streams[0]["id"]).stdout == f"cut {streams[0]['id']}\n"
    cut = client.answer(slow[0])
    assert cut.status == 503
    told = lb.cli("why", cut.headers["x-request-id"])
    assert told.returncode == 0, told.stderr
    assert "GET /slow?s=40" in told.stdout
    assert client.get("/whoami").status == 200
    assert lb.cli("close", connection["id"]).returncode == 0
    assert [client.answer(stream).status for stream in slow[1:]] == [503, 503]
    client.wait_end()
    assert [goaway.error_code for goaway in client.goaways] == [NO_ERROR, NO_ERROR]
    client.close()
    lb.wait_until(lambda: rows(lb) == [])


def test_the_log_says_http_2_and_a_reset_is_a_499(lb: Serving, client: Http2) -> None:
    number = client.request("GET", "/slow?s=40&left")
    lb.wait_until(lambda: len(rows(lb)) == 2 and rows(lb)[1]["backend"])
    client.reset(number, CANCEL)
    answer = client.get("/whoami?x")
    log = lb.config.parent / "access.log"
    lb.wait_until(lambda: '"GET /slow?s=40&left HTTP/2.0" 499 ' in log.read_text())
    lb.wait_until(lambda: f'"GET /whoami?x HTTP/2.0" {answer.status} ' in log.read_text())
    assert metric(lb, r'lbproxy_http2_resets_total\{listener="h2c",why="cancel"\}') == 1


def test_a_hundred_streams_of_one_connection_outlast_a_reload(lb: Serving, client: Http2) -> None:
    first = [client.request("GET", "/slow?s=1") for _ in range(50)]
    codes: list[int] = []
    reload = Thread(target=lambda: codes.append(lb.cli("reload").returncode))
    reload.start()
    asked = 0
    while reload.is_alive():
        assert client.get("/whoami").status == 200
        asked += 1
    later = [client.request("GET", "/slow?s=0.2") for _ in range(50)]
    assert {client.answer(stream).status for stream in (*first, *later)} == {200}
    assert codes == [0]
    assert asked > 10
    assert not client.goaways


def test_a_table_that_changes_a_listener_reaches_open_connections(lb: Serving, client: Http2) -> None:
    assert client.post("/upload", b"x" * 2000).status == 200
    lb.write_config(web(more=LISTENERS.replace("10MiB", "1KiB"), workers=1, command="$longlived"))
    assert lb.cli("reload", "--config-only").returncode == 0
    assert client.post("/upload", b"x" * 2000).status == 413
    lb.write_config(web(more=LISTENERS.replace(', "h2c"', ""), workers=1, command="$longlived"))
    number = client.request("GET", "/slow?s=1")
    assert lb.cli("reload", "--config-only").returncode == 0
    assert client.answer(number).status == 200
    client.wait_end()
    assert [goaway.last_stream_id for goaway in client.goaways] == [2**31 - 1, number]
    lb.write_config(web(more=LISTENERS, workers=1, command="$longlived"))
    assert lb.cli("reload", "--config-only").returncode == 0


def test_an_upgrade_lets_streams_finish_and_new_connections_go_to_the_new_program(lb: Serving) -> None:
    with http2(lb.ports["port2"]) as old:
        number = old.request("GET", "/slow?s=2")
        lb.wait_until(lambda: len(rows(lb)) == 2 and rows(lb)[1]["backend"])
        began = time.monotonic()
        done = lb.cli("upgrade")
        assert done.returncode == 0, done.stdout + done.stderr
        assert old.answer(number).status == 200
        old.wait_end()
        assert [goaway.error_code for goaway in old.goaways] == [NO_ERROR, NO_ERROR]
        assert time.monotonic() - began < 20
    with http2(lb.ports["port2"]) as new:
        assert new.get("/whoami").status == 200
