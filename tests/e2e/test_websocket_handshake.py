"""Upgrades: which ones pass, what becomes of the others, and that a refused one costs nothing."""

import re
import socket
from pathlib import Path

import pytest
from support.swap import Stage, swapping
from support.ws import upgrade_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def received(sock: socket.socket, count: int) -> bytes:
    """Until the heads of `count` responses have come."""
    data = b""
    while len(re.findall(rb"HTTP/1.1 \d\d\d ", data)) < count:
        more = sock.recv(65536)
        assert more, f"the connection ended behind {data!r}"
        data += more
    return data


@pytest.fixture
def stage(tmp_path: Path):
    with swapping(tmp_path) as stage:
        stage.backend.refuses = True
        yield stage


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    ],
    ids=["200", "400", "426", "403 chunked"],
)
def test_after_a_refused_upgrade_what_follows_is_the_next_request(stage: Stage, answer: bytes) -> None:
    stage.backend.answers = lambda head: answer if b"\r\nUpgrade: websocket\r\n" in head else OK
    with stage.lb.connect() as sock:
        sock.sendall(upgrade_request() + b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n")
        sock.sendall(b"GET /last HTTP/1.1\r\nHost: test\r\n\r\n")
        data = received(sock, 3)
    heads = re.findall(rb"HTTP/1.1 (\d+) ", data)
    assert heads == [answer[9:12], b"200", b"200"]
    asked = re.findall(rb"[A-Z]+ (/\w+) HTTP/1.1", b"".join(stage.backend.received))
    assert sorted(asked) == [b"/last", b"/next", b"/ws"]


@pytest.mark.parametrize(
    "request_",
    [
        upgrade_request().replace(b"GET /ws", b"POST /ws").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
        upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        upgrade_request().replace(b"Upgrade: websocket", b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
        upgrade_request().replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
        upgrade_request().replace(b"Connection: Upgrade\r\n", b""),
        upgrade_request().replace(b"GET /ws", b"OPTIONS *"),
    ],
    ids=["POST", "HTTP/1.0", "h2c", "two protocols", "without Connection", "OPTIONS"],
)
def test_every_other_upgrade_is_an_ordinary_request(stage: Stage, request_: bytes) -> None:
    with stage.lb.connect() as sock:
        sock.sendall(request_)
        peer = stage.backend.peer()
        head = bytes(peer.received).lower()
        assert b"\r\nupgrade:" not in head
        assert b"http2-settings" not in head
        assert not re.search(rb"\r\nconnection:[^\r]*upgrade", head)
        peer.send(OK)
        assert received(sock, 1).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_backend_that_switches_unasked_is_answered_with_502(stage: Stage) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"
    with stage.lb.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        stage.backend.peer().send(switching)
        assert received(sock, 1).startswith(b"HTTP/1.1 502 ")


def test_a_backend_that_switches_to_something_else_is_answered_with_502(stage: Stage) -> None:
    with stage.lb.connect() as sock:
        sock.sendall(upgrade_request())
        stage.backend.peer().send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert received(sock, 1).startswith(b"HTTP/1.1 502 ")
