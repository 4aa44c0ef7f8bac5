"""Listeners and routes: who comes where decides which pool answers."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.load import load
from support.over_tls import plain_only
from support.serve import Serving, serving

CONFIG = """
[proxy]
workers = 1

[[listener]]
name = "public"
address = "127.0.0.1:$port"
pool = "web"

[[listener]]
name = "internal"
address = "unix:internal.sock"
pool = "api"

[[listener]]
name = "everywhere"
address = ":$port2"

[[route]]
host = "api.example.com"
path = "/v1/"
pool = "api"

[[route]]
path = "/static/"
pool = "files"

[[route]]
path = "/static/dynamic/"
pool = "api"

[pool.web]
command = "$brittle"
[pool.api]
command = "$brittle"
[pool.files]
command = "$brittle"
"""


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(CONFIG, tmp_path_factory.mktemp("routes")) as lb:
        yield lb


@pytest.mark.parametrize(
    ("host", "path", "pool"),
    [
        ("a.example", "/", "web"),
        ("a.example", "/v1/x", "web"),
        ("api.example.com", "/v1/x", "api"),
        ("API.Example.COM:8080", "/v1/x", "api"),
        ("api.example.com", "/v2/x", "web"),
        ("api.example.com", "/v1", "web"),
        ("a.example", "/static/a.css", "files"),
        ("a.example", "/static/dynamic/a", "api"),
        ("a.example", "/static", "web"),
        ("a.example", "/static/?q=/static/dynamic/", "files"),
    ],
)
def test_host_and_longest_path_decide(lb: Serving, host: str, path: str, pool: str) -> None:
    assert lb.get(path, {"Host": host}).json()["pool"] == pool


def test_a_unix_listener_has_its_own_pool(lb: Serving) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(lb.config.parent / "internal.sock"))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b'"pool": "api"' in client.makefile("rb").read()


def test_a_listener_on_every_address_is_reached_over_both_protocols(lb: Serving) -> None:
    for host in ("127.0.0.1", "::1") if os.path.exists("/proc/net/if_inet6") else ("127.0.0.1",):
        with socket.create_connection((host, lb.ports["port2"])) as client:
            client.sendall(b"GET /static/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")


def test_a_listener_without_a_pool_knows_only_routes(lb: Serving) -> None:
    def ask(path: bytes) -> bytes:
        with socket.create_connection(("localhost", lb.ports["port2"])) as client:
            client.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path)
            return client.makefile("rb").read()

    assert b'"pool": "files"' in ask(b"/static/x")
    answer = ask(b"/nothing")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"Proxy-Status: " in answer


@plain_only
def test_status_shows_every_listener(lb: Serving) -> None:
    names = {listener["name"]: listener["address"] for listener in lb.status()["listeners"]}
    assert names["public"] == f"127.0.0.1:{lb.port}"
    assert set(names) == {"public", "internal", "everywhere"}
    assert names["internal"].startswith("unix:")


def test_routes_change_with_a_reload_while_clients_stay_connected(tmp_path: Path) -> None:
    with serving(CONFIG, tmp_path) as lb, lb.connect() as client:

        def pool_of_static() -> str:
            client.sendall(b"GET /static/x HTTP/1.1\r\nHost: a\r\n\r\n")
            return client.recv(65536).decode().partition('"pool": "')[2].partition('"')[0]

        assert pool_of_static() == "files"
        with load(lb.port) as clients:
            lb.write_config(CONFIG.replace('pool = "files"', 'pool = "web"', 1))
            assert lb.cli("reload", "--config-only").returncode == 0
            clients.wait_more(20)
        assert clients.lost == []
        assert pool_of_static() == "web"  # on the connection of before
