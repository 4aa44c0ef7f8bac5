"""The end-to-end suite over TLS: with LBPROXY_TESTS_OVER=tls, every TCP listener of a test's configuration has TLS.

Tests go on to speak plain, to the ports that they know: there a bridge (tls_bridge.py) secures their connections. So
all clients, tools and raw sockets of the suite are TLS clients. Left plain: other addresses than 127.0.0.1, and
listeners with tls of their own, behind a PROXY header, or that redirect.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.ports import free_port
from support.tls_peer import pem

IS_ON = os.environ.get("LBPROXY_TESTS_OVER") == "tls"
plain_only = pytest.mark.skipif(IS_ON, reason="about connections as the kernel knows them, or a client's own TLS")

_table = re.compile(r"^\[\[listener\]\]\n(?:(?!\[).*\n?)*", re.MULTILINE)
_address = re.compile(r'^address *= *"127\.0\.0\.1:\$(port\d*)"', re.MULTILINE)
_left_alone = re.compile(r"^(tls|proxy_protocol|redirect|acme_challenges) *=", re.MULTILINE)


class Bridges:
    """The bridges of one lbproxy. They stay where they are when it starts anew."""

    def __init__(self) -> None:
        self._targets: dict[str, int] = {}  # by the name of the port that tests know
        self._processes: list[subprocess.Popen[bytes]] = []

    def secure(self, config: str, ports: dict[str, int]) -> str:
        """The configuration with TLS. New ports get a bridge."""
        return _table.sub(lambda found: self._secure(found[0], ports), config)

    def _secure(self, table: str, ports: dict[str, int]) -> str:
        address = _address.search(table)
        if address is None or _left_alone.search(table):
            return table
        name = address[1]
        if name not in self._targets:
            self._targets[name] = free_port()
            self._start(ports.setdefault(name, free_port()), self._targets[name])
        file = pem()
        lines = f'address = "127.0.0.1:{self._targets[name]}"\ntls = {{ cert = "{file}", key = "{file}" }}'
        return table.replace(address[0], lines)

    def _start(self, port: int, target: int) -> None:
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
