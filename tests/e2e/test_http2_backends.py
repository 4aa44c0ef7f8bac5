"""Real servers of HTTP/2 behind a real lbproxy: hypercorn, Node, nghttpd; h2c and TLS; clients of both versions."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.apps import NODE_HTTP2
from support.certificates import pem_file
from support.grpc_client import Streams, calling
from support.http2 import http2
from support.load import load
from support.ports import free_port
from support.serve import Serving, serving

LARGE = bytes(range(256)) * 12_000  # 3 MB: 47 windows of a stream
CONFIG = """
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
protocols = ["http/1.1", "h2c"]
pool = "web"
[[route]]
path = "/ngh"
pool = "ngh"
[[route]]
path = "/echo"
pool = "hyper"
[[route]]
path = "/tls"
pool = "tls"
[[route]]
path = "/old"
pool = "old"
[pool.web]
command = "$nodehttp2 --port {port}"
protocol = "h2c"
size = 2
health = { path = "/healthz" }
reload = { min_ready = "0s" }
[pool.hyper]
command = "$hypercorn --bind 127.0.0.1:{port}"
protocol = "h2c"
health = { path = "/healthz" }
[pool.ngh]
command = "nghttpd --no-tls -d $dir {port}"
protocol = "h2c"
[pool.tls]
targets = ["https://127.0.0.1:%(tls)d"]
protocol = "h2"
tls = { ca = "%(pem)s", server_name = "a.example" }
[pool.old]
command = "$demo --port {port}"
protocol = "h2c"
"""


@contextmanager
def node_over_tls(port: int, pem: Path) -> Iterator[None]:
    process = subprocess.Popen([*NODE_HTTP2.split(), "--port", str(port), "--pem", str(pem)])
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_servers_of_http2_serve_clients_of_both_versions(tmp_path: Path) -> None:
    pem, port = pem_file(tmp_path, "a.example"), free_port()
    (tmp_path / "ngh").mkdir()
    (tmp_path / "ngh" / "large").write_bytes(LARGE)
    config = CONFIG % {"tls": port, "pem": pem}
    with node_over_tls(port, pem), serving(config, tmp_path) as lb, http2(lb.port) as client:
        for path in ("/a", "/tls/a", "/echo"):
            assert lb.request("POST", path, body=LARGE).body == LARGE, path
            assert client.post(path, LARGE).body == LARGE, path
        assert lb.get("/ngh/large").body == LARGE
        assert client.get("/ngh/large").body == LARGE
        # Many streams beside each other, whose answers come in another order.
        streams = [client.request("GET", "/slow" if number % 2 else f"/{number}") for number in range(40)]
        assert {client.answer(stream).status for stream in streams} == {200}
        head = client.answer(client.request("HEAD", "/a"))
        assert (head.status, head.headers["x-method"], bytes(head.body)) == (200, "HEAD", b"")
        early = client.get("/early")
        assert [(status, fields[0]) for status, fields in early.interim] == [(103, ("link", "</a.css>"))]
        answer = client.post("/trailers", b"abc")
        assert (bytes(answer.body), answer.trailers) == (b"abc", [("x-size", "3")])
        # A server that speaks HTTP/1 only.
        assert lb.request("POST", "/old", body=b"x").status == 502
        assert client.post("/old", b"x").status == 502
        assert "does not keep to HTTP/2" in lb.cli("why", lb.get("/old").headers["X-Request-ID"]).stdout


def test_a_reload_of_http2_backends_loses_nothing(tmp_path: Path) -> None:
    config = CONFIG.partition("[[route]]")[0] + CONFIG[CONFIG.index("[pool.web]") : CONFIG.index("[pool.hyper]")]
    with serving(config, tmp_path) as lb, load(lb.port) as clients, http2(lb.port) as client:
        posted = _Poster(lb)
        for _ in range(2):
            slow = [client.request("POST", "/slow", end=False) for _ in range(10)]
            for stream in slow:
                client.send(stream, b"part")
            reload = threading.Thread(target=lb.cli, args=("reload",))
            reload.start()
            clients.wait_more(20)
            for stream in slow:
                client.send(stream, b"rest", end=True)
            assert {bytes(client.answer(stream).body) for stream in slow} == {b"partrest"}
            reload.join()
        assert lb.status()["pools"]["web"]["generation"] == 3
        assert posted.stop() == []
        assert clients.lost == []
        records = [json.loads(line) for line in lb.cli("history", "--json").stdout.splitlines()]
        assert [record["failed"] for record in records if record["verb"] == "reload"] == [0, 0]


def test_a_server_that_ages_its_connections_loses_no_call(tmp_path: Path) -> None:
    """grpcio says GOAWAY with the highest id, then with the last stream that it takes, every 0.3 s."""
    config = (
        CONFIG.partition("[[route]]")[0]
        + """
[pool.web]
command = "$grpc --aio --age-ms 300 --port {port}"
protocol = "h2c"
health = { grpc = true }
"""
    )
    with serving(config, tmp_path) as lb, calling(lb.port) as one, calling(lb.port) as other:
        streams = Streams(lb.port, 4, finite=(5, 20))
        streams.start()
        streams.over.wait(2.0)
        streams.stop()
    assert (one, other, streams.wrong, streams.trouble) == ([], [], [], [])
    assert len(streams.finished) > 4


class _Poster:
    """POSTs, one after the other, over HTTP/2. What may not be sent again must not be lost either."""

    def __init__(self, lb: Serving) -> None:
        self._port = lb.port
        self._ends = threading.Event()
        self._lost: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with http2(self._port) as client:
            while not self._ends.wait(0.002):
                answer = client.post("/a", b"hello")
                if (answer.status, bytes(answer.body)) != (200, b"hello"):
                    self._lost.append(repr(answer))

    def stop(self) -> list[str]:
        self._ends.set()
        self._thread.join()
        return self._lost
