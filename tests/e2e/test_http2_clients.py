"""The HTTP/2 clients that people use, against one real lbproxy: curl, nghttp, h2load, nghttpx, Node, httpx2."""

import json
import re
import socket
import subprocess
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support.apps import HTTP2_CLIENT
from support.http2 import tls_context
from support.ports import free_port
from support.serve import Serving, serving
from support.tls_peer import pem
from support.web import web

UPLOAD = bytes(range(256)) * 20000  # 5 MB: eighty windows
SUM = f"{len(UPLOAD)} {zlib.crc32(UPLOAD):08x}"
DOWNLOAD_BYTES = 100 << 20
PATIENCE_S = 60


def config() -> str:
    text = web(
        command="$origin --port {port}",
        more=f"""
[pool.node]
command = "$node"

# What goes to nghttpx comes back, for the pool "web".
[pool.behind]
command = "nghttpx -f127.0.0.1,{{port}};no-tls -b127.0.0.1,$port;;proto=h2 --host-rewrite --conf=/dev/null -LERROR -n1"
protocol = "h2c"

[[route]]
host = "behind.example"
pool = "behind"

[[route]]
path = "/trailers"
pool = "node"

[[route]]
path = "/"
pool = "web"

[[listener]]
name = "secure"
address = "127.0.0.1:$port2"
tls = {{ cert = "{pem()}", key = "{pem()}" }}
pool = "web"

[log]
access_path = "access.log"
""",
    )
    return text.replace('name = "public"', 'name = "public"\npool = "web"\nprotocols = ["h2c", "http/1.1"]')


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(config(), tmp_path_factory.mktemp("clients")) as lb:
        (lb.config.parent / "upload").write_bytes(UPLOAD)
        yield lb


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(*command: str | Path, status: int = 0) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == status, ended
    return ended.stdout


@pytest.mark.peer("curl")
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "prior-knowledge"])
def test_curl_gets_posts_and_downloads(lb: Serving, tls: bool) -> None:
    url = f"https://localhost:{lb.ports['port2']}" if tls else f"http://localhost:{lb.port}"
    options = ("--http2", "--cacert", str(pem())) if tls else ("--http2-prior-knowledge",)
    curl = ("curl", "-sS", *options)
    upload = lb.config.parent / "upload"
    urls = [f"{url}/2k"] * (2 if tls else 1)  # this curl (7.88) breaks a second request with prior knowledge
    said = run(*curl, "-i", *urls)
    assert said.count("HTTP/2 200") == len(urls)
    assert "via: 1.1 lbproxy" in said
    assert run(*curl, "--data-binary", f"@{upload}", f"{url}/sum").strip() == SUM
    head = run(*curl, "-I", f"{url}/64k")
    assert head.startswith("HTTP/2 200")
    assert "content-length: 65536" in head
    said = run(*curl, "-o", "/dev/null", "-w", "%{http_version} %{http_code} %{size_download}", f"{url}/100m")
    assert said == f"2 200 {DOWNLOAD_BYTES}"
    said = run(*curl, "-D", "-", "-d", "12345", f"{url}/trailers")
    assert "x-bytes: 5" in said, "trailers come behind the body"


@pytest.mark.peer("nghttp")
def test_nghttp_sees_frames_and_its_priorities_do_no_harm(lb: Serving) -> None:
    url = f"http://127.0.0.1:{lb.port}"
    said = run("nghttp", "-nv", "-p", "200", "-m", "5", f"{url}/64k")
    assert said.count(":status: 200") == 5
    assert "SETTINGS_MAX_CONCURRENT_STREAMS(0x03):100" in said.replace("[", "").replace("]", "")
    assert "PUSH_PROMISE" not in said
    assert run("nghttp", "-d", lb.config.parent / "upload", "--no-content-length", f"{url}/sum").strip() == SUM
    # Upgrade: h2c is not served: the answer comes in HTTP/1.1, as the specification wants it.
    ended = subprocess.run(
        ["nghttp", "-unv", f"{url}/2k"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert "HTTP/1.1 200" in ended.stdout + ended.stderr


@pytest.mark.peer("h2load", "nghttpx")
def test_h2load_loses_nothing_over_three_reloads_with_nghttpx_on_either_side(lb: Serving) -> None:
    front = free_port()
    command = [
        "nghttpx",
        f"-f127.0.0.1,{front};no-tls",
        f"-b127.0.0.1,{lb.port};;proto=h2",
        "--conf=/dev/null",
        "-LERROR",
        "-n1",
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as nghttpx:
        try:
            lb.wait_until(lambda: _listens(front))
            loads = [
                subprocess.Popen(
                    ["h2load", "-D4", "-c4", "-m10", f"-H:authority: {authority}", f"{url}/2k"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                for url, authority in (
                    (f"https://127.0.0.1:{lb.ports['port2']}", "a.example"),
                    (f"http://127.0.0.1:{front}", "a.example"),
                    (f"http://127.0.0.1:{lb.port}", "behind.example"),
                )
            ]
            for _ in range(3):
                assert lb.cli("reload").returncode == 0
            for load in loads:
                said, _ = load.communicate(timeout=PATIENCE_S)
                assert re.search(r"requests: \d{3,} total, .* 0 failed, 0 errored, 0 timeout", said), said
                assert re.search(r"status codes: \d{3,} 2xx, 0 3xx, 0 4xx, 0 5xx", said), said
        finally:
            nghttpx.terminate()


@pytest.mark.peer("node")
def test_node_uses_streams_and_trailers_and_its_streams_outlive_goaway(tmp_path: Path) -> None:
    with serving(config(), tmp_path) as lb:
        url = f"https://127.0.0.1:{lb.ports['port2']}"
        with subprocess.Popen([*HTTP2_CLIENT, url], stdout=subprocess.PIPE, text=True) as node:
            assert node.stdout is not None
            heard = {}
            for line in node.stdout:
                heard.update(json.loads(line))
                if "waiting" in heard and not lb.exited() and "stopped" not in heard:
                    heard["stopped"] = True
                    threading.Thread(target=lb.stop).start()
        assert "error" not in heard, heard
        assert heard["many"] == 150
        assert heard["sum"]["status"] == 200
        assert heard["trailers"]["trailers"] == {"x-bytes": "3000000", "x-heard": "words"}
        assert heard["slow"] == heard["also"] == {"bytes": 20000, "status": 200}
        assert heard["events"] == ["goaway", "goaway"]
        assert (heard["goaway"], heard["closed"]) == (0, True)


def test_httpx2(lb: Serving) -> None:
    with httpx2.Client(http2=True, verify=tls_context("h2", "http/1.1")) as client:
        url = f"https://localhost:{lb.ports['port2']}"
        answer = client.get(f"{url}/2k")
        assert (answer.http_version, answer.status_code, len(answer.content)) == ("HTTP/2", 200, 2048)
        assert client.post(f"{url}/sum", content=UPLOAD).text.strip() == SUM
        assert client.post(f"{url}/sum", content=iter([b"123", b"45"])).text.startswith("5 ")
        with client.stream("GET", f"{url}/chunked?n=50&bytes=10000") as answer:
            assert sum(len(part) for part in answer.iter_bytes()) == 500_000
        assert client.head(f"{url}/64k").headers["content-length"] == "65536"
