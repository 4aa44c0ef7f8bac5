"""The end-to-end suite over TLS, or over HTTP/2: with LBPROXY_TESTS_OVER=tls, every TCP listener of a test's
configuration has TLS, with LBPROXY_TESTS_OVER=h2 every one for HTTP speaks HTTP/2 alone, with prior knowledge.

Tests go on to speak plain HTTP/1, to the ports that they know: there a bridge (tls_bridge.py, or nghttpx) stands. So
all clients, tools and raw sockets of the suite are clients of TLS, or of HTTP/2. Left plain: other addresses than
127.0.0.1, and listeners with tls or protocols of their own, behind a PROXY header, or that redirect.

Over HTTP/2 nghttpx answers a few things itself, and its clients share connections: what tests say about the bytes of
HTTP/1 does not hold there. What they say about reloads, drains, streams, transfers and WebSockets does:

    LBPROXY_TESTS_OVER=h2 pytest tests/e2e/test_{reload,streams,transfers,websocket,websocket_goodbye}.py
"""

import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.ports import free_port
from support.tls_peer import pem

OVER = os.environ.get("LBPROXY_TESTS_OVER", "")
IS_ON = OVER in ("tls", "h2")
plain_only = pytest.mark.skipif(IS_ON, reason="about connections as the kernel knows them, or a client's own TLS")

_table = re.compile(r"^\[\[listener\]\]\n(?:(?!\[).*\n?)*", re.MULTILINE)
_address = re.compile(r'^address *= *"127\.0\.0\.1:\$(port\d*)"', re.MULTILINE)
_left_alone = re.compile(r"^(tls|protocols|proxy_protocol|redirect|acme_challenges) *=", re.MULTILINE)
_tcp = re.compile(r"^mode *= *\"tcp\"", re.MULTILINE)


def _wait_listening(port: int) -> None:
    pause = threading.Event()
    for _ in range(1000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        pause.wait(0.01)
    raise AssertionError(f"nothing listens at {port}")


class Bridges:
    """The bridges of one lbproxy. They stay where they are when it starts anew."""

    def __init__(self) -> None:
        self._targets: dict[str, int] = {}  # by the name of the port that tests know
        self._processes: list[subprocess.Popen[bytes]] = []

    def secure(self, config: str, ports: dict[str, int]) -> str:
        """The configuration with TLS, or HTTP/2. New ports get a bridge."""
        return _table.sub(lambda found: self._secure(found[0], ports), config)

    def _secure(self, table: str, ports: dict[str, int]) -> str:
        address = _address.search(table)
        if address is None or _left_alone.search(table) or (OVER == "h2" and _tcp.search(table)):
            return table
        name = address[1]
        if name not in self._targets:
            self._targets[name] = free_port()
            self._start(ports.setdefault(name, free_port()), self._targets[name])
        file = pem()
        kind = 'protocols = ["h2c"]' if OVER == "h2" else f'tls = {{ cert = "{file}", key = "{file}" }}'
        return table.replace(address[0], f'address = "127.0.0.1:{self._targets[name]}"\n{kind}')

    def _start(self, port: int, target: int) -> None:
        if OVER == "h2":
            front, back = f"-f127.0.0.1,{port};no-tls", f"-b127.0.0.1,{target};;proto=h2"
            command = ["nghttpx", front, back, "--conf=/dev/null", "-LERROR", "-n1", "--no-via"]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL))
            _wait_listening(port)
            return
        bridge = Path(__file__).with_name("tls_bridge.py")
        command = [sys.executable, str(bridge), str(pem()), f"{port}:{target}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
