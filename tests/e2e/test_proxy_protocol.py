"""A real HAProxy in front that announces its client by a PROXY header."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.serve import Serving, serving
from support.web import web

ACCEPTING = web(size=1).replace(
    'address = "127.0.0.1:$port"',
    'address = "127.0.0.1:$port"\nproxy_protocol = "accept"\ntrusted_proxies = ["127.0.0.1"]',
)


@contextlib.contextmanager
def running(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


def asked_from(address: str, port: int, lb: Serving) -> str:
    """The head as the backend got it, of a request that comes from this address of the loopback."""
    words = ["curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "0", "--interface", address]
    lb.wait_until(lambda: subprocess.run([*words, f"http://127.0.0.1:{port}/"], capture_output=True).returncode == 0)
    done = subprocess.run([*words, f"http://127.0.0.1:{port}/head"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.peer("haproxy", "curl")
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_haproxy_in_front(version: str, tmp_path: Path) -> None:
    with serving(ACCEPTING, tmp_path) as lb:
        port, config = free_port(), tmp_path / "haproxy.cfg"
        config.write_text(
            "defaults\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n mode tcp\n"
            f"listen all\n bind 127.0.0.1:{port}\n server lb 127.0.0.1:{lb.port} {version}\n"
        )
        with running("haproxy", "-db", "-f", str(config)):
            assert "X-Forwarded-For: 127.9.8.7\n" in asked_from("127.9.8.7", port, lb).replace("\r", "")


def test_a_direct_client_without_a_header_is_let_go_of(tmp_path: Path) -> None:
    with serving(ACCEPTING, tmp_path) as lb:
        with lb.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(100) == b""
        lb.wait_log("a client was let go of: no PROXY header")
