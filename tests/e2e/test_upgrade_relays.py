"""TCP sessions, WebSockets and idle connections go through upgrades: no byte lost, none twice, nobody reset."""

import json
import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from support.installed import Installed
from support.numbered import TCP_BEGINS, Numbered
from support.serve import Serving, serving
from support.trio_test import trio_test

import lbproxy

CONFIG = """
[proxy]
workers = 2

[log]
access_path = "access.log"
access = "json"

[[listener]]
name = "http"
address = "127.0.0.1:$port"
pool = "sockets"

[[listener]]
name = "plain"
address = "127.0.0.1:$port2"
mode = "tcp"
pool = "sockets"

[[listener]]
name = "web"
address = "127.0.0.1:$port3"
pool = "web"

[pool.sockets]
targets = ["127.0.0.1:NUMBERED"]
[pool.sockets.health]
active = false

[pool.web]
command = "$origin --port {port}"
[pool.web.health]
path = "/"
"""
CLIENTS = 40


def ask(sock: socket.socket) -> bytes:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return sock.recv(65536)


def connections(lb: Serving) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(lb.cli("connections", "sockets", "--json").stdout)["connections"]
    return found


def sessions(tmp_path: Path) -> list[dict[str, Any]]:
    """The lines of TCP sessions and WebSockets."""
    lines = [json.loads(line) for line in (tmp_path / "run/access.log").read_bytes().splitlines()]
    return [line for line in lines if line["status"] == 101 or line["method"] == "TCP"]


@pytest.mark.long
@trio_test(timeout_s=100)
async def test_live_connections_go_through_upgrades_to_another_version_and_back(tmp_path: Path) -> None:
    installed = Installed(tmp_path / "installed")
    numbered = Numbered(0.01)
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(numbered.run)
            config = CONFIG.replace("NUMBERED", str(numbered.port))
            lb = await trio.to_thread.run_sync(
                stack.enter_context, serving(config, tmp_path / "run", environment=installed.environment)
            )
            async with trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    port = lb.ports["port2"] if number % 2 else lb.port
                    clients.start_soon(partial(numbered.client, port, websocket=not number % 2))
                idle = [
                    stack.enter_context(socket.create_connection(("127.0.0.1", lb.ports["port3"]), timeout=20))
                    for _ in range(12)
                ]
                for sock in idle[:8]:
                    assert ask(sock).startswith(b"HTTP/1.1 200")
                while len(numbered.clients) < CLIENTS:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                before = await trio.to_thread.run_sync(connections, lb)
                for version in ("9.0", lbproxy.__version__):
                    await numbered.wait_more()
                    installed.become(version)
                    done = await trio.to_thread.run_sync(partial(lb.cli, "upgrade"))
                    assert done.returncode == 0, done
                    await numbered.wait_more()
                    assert numbered.errors == []
                after = await trio.to_thread.run_sync(connections, lb)
                assert len(before) == len(after) == CLIENTS
                assert {row["kind"] for row in after} == {"tcp", "websocket"}
                for sock in idle:
                    assert ask(sock).startswith(b"HTTP/1.1 200")
                numbered.stop.set()
            assert numbered.errors == []
            nursery.cancel_scope.cancel()
        lb.wait_until(lambda: sum(worker["connections"] for worker in lb.status()["workers"]) == len(idle))
        lb.wait_until(lambda: len(sessions(tmp_path)) >= CLIENTS)
        assert len(sessions(tmp_path)) == CLIENTS, "each session has one line, from the worker where it ended"
        assert sum(line["request_bytes"] for line in sessions(tmp_path)) == sum(
            end.bytes_sent for end in numbered.clients
        ) + CLIENTS // 2 * len(TCP_BEGINS % 0)
        assert max(end.longest_s for end in numbered.clients) < 1.5
