"""Who the client is behind proxies: the same client in the log and for the backend, from both lanes; unix listeners."""

import socket
import stat
from pathlib import Path

import pytest
from support.serve import serving
from support.web import web

CONFIG = web(size=1).replace(
    'address = "127.0.0.1:$port"',
    """address = "127.0.0.1:$port"
trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
forwarded = true

[[listener]]
address = "unix:lb.sock"
trusted_proxies = ["unix"]
socket_mode = "0660"
""",
)
CHAIN = "6.6.6.6, 192.0.2.7:1234, 10.0.0.3"


def ask(sock: socket.socket, *lines: str) -> dict[str, str]:
    """The head as the backend got it."""
    with sock:
        asked = "\r\n".join(("GET /head HTTP/1.1", "Host: a.example", "Connection: close", *lines, "", ""))
        sock.sendall(asked.encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    body = answer.partition("\r\n\r\n")[2]
    return dict(line.split(": ", 1) for line in body.splitlines() if ": " in line)


def from_loopback(port: int, address: str) -> socket.socket:
    sock = socket.socket()
    sock.bind((address, 0))
    sock.connect(("127.0.0.1", port))
    return sock


@pytest.mark.parametrize("express", ["on", "off"])
def test_the_client_is_the_same_everywhere(express: str, tmp_path: Path) -> None:
    text = CONFIG + '\n[log]\naccess = "json"\naccess_path = "access.log"\n'
    with serving(text, tmp_path, environment={"LBPROXY_EXPRESS": express}) as lb:

        def logged(path: str = "access.log") -> list[str]:
            return [line for line in (tmp_path / path).read_text().splitlines() if "/head" in line]

        told = ask(lb.connect(), f"X-Forwarded-For: {CHAIN}", "X-Forwarded-Proto: https")
        assert told["X-Forwarded-For"] == f"{CHAIN}, 127.0.0.1"
        assert told["X-Forwarded-Proto"] == "https"
        assert told["Forwarded"] == (
            "for=6.6.6.6, for=192.0.2.7;proto=https, for=10.0.0.3, for=127.0.0.1;host=a.example;proto=http"
        )
        lb.wait_until(lambda: len(logged()) == 1)
        assert '"client":"192.0.2.7"' in logged()[0]

        told = ask(from_loopback(lb.port, "127.0.0.9"), f"X-Forwarded-For: {CHAIN}", "Forwarded: for=6.6.6.6")
        assert told["X-Forwarded-For"] == "127.0.0.9"
        assert told["X-Forwarded-Proto"] == "http"
        assert told["Forwarded"] == "for=127.0.0.9;host=a.example;proto=http"
        lb.wait_until(lambda: len(logged()) == 2)
        assert '"client":"127.0.0.9"' in logged()[1]

        # A unix listener, whose peers are believed.
        path = tmp_path / "lb.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        local = socket.socket(socket.AF_UNIX)
        local.connect(str(path))
        told = ask(local, f"X-Forwarded-For: {CHAIN}")
        assert told["X-Forwarded-For"] == CHAIN
        lb.wait_until(lambda: len(logged()) == 3)
        assert '"client":"10.0.0.3"' in logged()[2]  # 10.0.0.0/8 is not trusted there

        lb.write_config(text.replace('"0660"', '"0600"'))
        done = lb.cli("reload", "--config-only")
        assert done.returncode == 0, done.stdout + done.stderr
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
