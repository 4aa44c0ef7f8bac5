"""TLS of a real lbproxy, with curl, openssl, Node and Python as clients: what must hold in every run of the suite.

All other end-to-end tests run over TLS with LBPROXY_TESTS_OVER=tls (support/over_tls.py).
"""

import http.client
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.serve import Serving, serving
from support.tls_peer import pem
from support.ws import WebSocketEnd, accept_of, upgrade_request
from wsproto.connection import ConnectionType

TIMEOUT_S = 20.0
MEGABYTES = 3_000_000
CONFIG = """
[proxy]
workers = 1

[[listener]]
name = "public"
address = "127.0.0.1:$port"
pool = "web"
tls = {{ cert = "{pem}", key = "{pem}" }}

[[listener]]
name = "raw"
address = "127.0.0.1:$port2"
mode = "tcp"
pool = "web"
tls = {{ cert = "{pem}", key = "{pem}", min_version = "1.3" }}

[pool.web]
command = "$longlived"
bind = "fd"
size = 1
health = {{ path = "/healthz", interval = "500ms" }}
reload = {{ min_ready = "0s" }}
restart = {{ stop_timeout = "500ms" }}
drain = {{ request = "200ms", transfer = "20s", websocket = "300ms", goodbye = "2s" }}

[log]
level = "debug"
"""


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(CONFIG.format(pem=pem()), tmp_path_factory.mktemp("tls")) as running:
        yield running


def context() -> ssl.SSLContext:
    """It takes no cut connection for an end."""
    made = ssl.create_default_context(cafile=str(pem()))
    made.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return made


def secured(port: int, made: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    return (made or context()).wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)


def run(*command: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_S, check=False)


def ask(sock: ssl.SSLSocket, path: str, *fields: str) -> http.client.HTTPResponse:
    lines = "".join(f"{line}\r\n" for line in fields)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response


@pytest.mark.peer("curl")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl(lb: Serving, tmp_path: Path, version: str) -> None:
    base = ["curl", "-sS", "--cacert", str(pem()), f"--tlsv{version}", "--tls-max", version]
    url = f"https://localhost:{lb.port}"
    done = run(*base, "-w", "%{http_code} %{num_connects}\n", f"{url}/whoami", f"{url}/whoami", "-o", "/dev/null")
    assert done.stdout.endswith(b"200 0\n"), "the second request goes over the same connection"
    body = tmp_path / "body"
    body.write_bytes(b"u" * MEGABYTES)
    assert run(*base, "--data-binary", f"@{body}", f"{url}/upload").stdout.strip() == str(MEGABYTES).encode()
    assert run(*base, "-T", str(body), "-H", "Expect:", f"{url}/upload", "-X", "POST").stdout.strip() == b"3000000"
    got = run(*base, f"{url}/drip?s=0.1&every=0.01&block=300000").stdout
    assert got == b"d" * 3_000_000


@pytest.mark.peer("openssl")
def test_openssl_with_small_records_and_what_is_refused(lb: Serving) -> None:
    s_client = ["openssl", "s_client", "-connect", f"127.0.0.1:{lb.port}", "-CAfile", str(pem())]
    head = b"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 30000\r\n\r\n"
    for odd in (["-max_send_frag", "512"], ["-max_send_frag", "777", "-tls1_2"], ["-split_send_frag", "1000"]):
        done = run(*s_client, "-quiet", "-ign_eof", *odd, data=head + b"x" * 30_000)
        assert b"30000" in done.stdout.rpartition(b"\r\n\r\n")[2], (odd, done)
    assert b"alert protocol version" in run(*s_client, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0").stderr
    assert b"alert handshake failure" in run(*s_client, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA").stderr
    assert b"no application protocol" in run(*s_client, "-alpn", "spdy/3").stderr
    told = run(*s_client, "-tls1_2", "-alpn", "http/1.1", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE+AESGCM")
    assert b"Cipher is ECDHE-ECDSA-AES128-GCM-SHA256" in told.stdout, "the order is the server's"
    assert b"ALPN protocol: http/1.1" in told.stdout
    assert b"Compression: NONE" in told.stdout
    lb.wait_log('"tls.failed"')
    assert "Traceback" not in lb.log()


@pytest.mark.peer("node")
def test_node(lb: Serving) -> None:
    script = """
const https = require("https"), fs = require("fs");
const agent = new https.Agent({keepAlive: true, maxSockets: 1, ca: fs.readFileSync(process.argv[1])});
const url = `https://localhost:${process.argv[2]}`;
let left = 3;
const next = () => https.get(`${url}/whoami`, {agent}, (answer) => {
  console.log(answer.statusCode, answer.socket.getProtocol());
  answer.resume();
  answer.on("end", () => {
    if (--left) next(); else agent.destroy();
  });
});
next();
"""
    done = run("node", "-e", script, str(pem()), str(lb.port))
    assert done.stdout == b"200 TLSv1.3\n" * 3, done.stderr


def test_a_request_byte_by_byte_and_an_end_that_is_one(lb: Serving) -> None:
    with secured(lb.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
            sock.sendall(bytes([byte]))
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == 200
        response.read()
        assert sock.recv(100) == b"", "close_notify"


def test_clients_that_leave_without_a_word_leave_nothing(lb: Serving) -> None:
    for _ in range(20):
        sock = secured(lb.port)
        ask(sock, "/whoami").read()
        socket.socket.close(sock)
    cut = socket.create_connection(("127.0.0.1", lb.port))
    cut.sendall(b"\x16\x03\x01\x02\x00\x01")
    cut.close()
    with closing(secured(lb.port)) as waiting:
        waiting.sendall(b"GET /slow?s=30 HTTP/1.1\r\nHost: a\r\n\r\n")
    lb.wait_until(lambda: not [row for row in connections(lb) if row["listener"] == "public"])
    assert "Traceback" not in lb.log()


def connections(lb: Serving) -> list[dict]:
    return json.loads(lb.cli("connections", "--json").stdout)["connections"]


def test_tcp_mode_gives_the_backend_plain_bytes(lb: Serving) -> None:
    with secured(lb.ports["port2"]) as sock:
        for _ in range(2):
            assert ask(sock, "/whoami").read()
        assert len(ask(sock, "/drip?s=0.1&every=0.01&block=300000").read()) == 3_000_000
    old = context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        secured(lb.ports["port2"], old)


def test_a_reload_says_1001_and_lets_downloads_finish(lb: Serving) -> None:
    with secured(lb.port) as sock, secured(lb.port) as loading, secured(lb.port) as idle:
        ask(idle, "/whoami").read()
        key = b"dGhlIHNhbXBsZSBub25jZQ=="
        sock.sendall(upgrade_request("/ws?push=0.005", key=key.decode()))
        answered = sock.recv(65536)
        head, _, early = answered.partition(b"\r\n\r\n")
        assert accept_of(key) in head
        end = WebSocketEnd(sock, ConnectionType.CLIENT, early)
        response = ask(loading, "/drip?s=1.5&every=0.05&block=200000")
        body = response.read(200_000)
        verdict: list[dict] = []

        def reload() -> None:
            verdict.extend(map(json.loads, lb.api("POST", "/v1/reload", {}).body.splitlines()))

        thread = threading.Thread(target=reload)
        thread.start()
        heard = end.follow()
        assert (heard.closes, heard.behind_close, heard.reset) == ([(1001, "going away")], [], False)
        assert body + response.read() == b"d" * 6_000_000
        thread.join()
        done = next(line for line in verdict if line["event"] == "reload.done")
        assert (done["failed"], done["cut"], done["websockets_closed"]) == (0, 0, 1)
        assert ask(idle, "/whoami").status == 200, "an idle connection does not notice"


def test_no_client_is_lost_when_it_stops(tmp_path: Path) -> None:
    """A connection that was accepted is served, whatever stage of its handshake it is in. Then they are refused."""
    with serving(CONFIG.format(pem=pem()), tmp_path) as lb:
        answered, lost = [0], []
        one = context()

        def come() -> None:
            while True:
                try:
                    plain = socket.create_connection(("127.0.0.1", lb.port), timeout=TIMEOUT_S)
                except ConnectionRefusedError:
                    return
                try:
                    with one.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as sock:
                        assert ask(sock, "/whoami", "Connection: close").status == 200
                        answered[0] += 1
                except (OSError, http.client.HTTPException) as exc:
                    lost.append(repr(exc))

        clients = [threading.Thread(target=come) for _ in range(4)]
        for client in clients:
            client.start()
        lb.wait_until(lambda: answered[0] > 20 or lost)
        assert lb.stop() == 0
        for client in clients:
            client.join()
        assert lost == []
