"""TLS that lbproxy passes on without its key: real clients, real TLS servers behind it, routed by name."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.over_tls import plain_only
from support.serve import serving

CONFIG = """
[proxy]
workers = 2
[[listener]]
name = "public"
address = "127.0.0.1:$port"
mode = "tcp"
{default}
[[route]]
host = "a.example"
pool = "a"
[[route]]
host = "b.example"
pool = "{b}"
[pool.a]
targets = ["127.0.0.1:{ports[0]}"]
[pool.b]
targets = ["127.0.0.1:{ports[1]}"]
"""


def certificate(directory: Path, name: str) -> tuple[str, str]:
    cert, key = str(directory / f"{name}.pem"), str(directory / f"{name}.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", cert),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@contextmanager
def tls_server(directory: Path, name: str) -> Iterator[int]:
    """It answers each connection with one response that says its name. Gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(directory, name))
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\nConnection: close\r\n\r\n{name}".encode()

    def serve(sock: socket.socket) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) as secured:
                if secured.recv(4096):
                    secured.sendall(answer)
        except OSError:
            sock.close()  # a probe

    def accept() -> None:
        while True:
            try:
                sock = server.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def curl(name: str, port: int, directory: Path, ca: str = "") -> subprocess.CompletedProcess[str]:
    words = ["curl", "-sS", "--max-time", "10", "--resolve", f"{name}:{port}:127.0.0.1"]
    words += ["--cacert", str(directory / f"{ca or name}.pem"), f"https://{name}:{port}/"]
    return subprocess.run(words, capture_output=True, text=True)


@plain_only
@pytest.mark.peer("curl", "openssl")
def test_names_lead_to_the_servers_that_have_their_keys(tmp_path: Path) -> None:
    with tls_server(tmp_path, "a.example") as one, tls_server(tmp_path, "b.example") as two:
        config = CONFIG.format(default="", b="b", ports=(one, two))
        with serving(config, tmp_path) as lb:
            for name in ("a.example", "b.example", "a.example"):
                assert curl(name, lb.port, tmp_path).stdout == name
            unknown = curl("c.example", lb.port, tmp_path, "a.example")
            assert unknown.returncode != 0
            assert "unrecognized name" in unknown.stderr
            lb.wait_log("no route takes the name c.example")
            lb.config.write_text(
                CONFIG.format(default='pool = "a"', b="a", ports=(one, two)).replace("$port", str(lb.port))
            )
            assert lb.cli("reload", "--config-only").returncode == 0
            assert "certificate" in curl("b.example", lb.port, tmp_path).stderr, "it is the server of a.example"
            asked = subprocess.run(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{lb.port}", "-noservername", "-brief"],
                input="",
                capture_output=True,
                text=True,
            )
            assert "CN = a.example" in asked.stderr
            with lb.connect() as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                with suppress(ConnectionResetError):
                    assert plain.recv(100) == b"", "that goes to the pool of the listener, which speaks TLS"
            lb.wait_until(lambda: lb.status()["listeners"][0]["connections"] == 0)
