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


REFUSALS = {
    "200": OK,
    "400": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno",
    "426": b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno",
    "403": b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
}


def test_after_a_refused_upgrade_what_follows_is_the_next_request(stage: Stage) -> None:
    def answer(head: bytes) -> bytes:
        return REFUSALS[head[8:11].decode()] if b"\r\nUpgrade: websocket\r\n" in head else OK

    stage.backend.answers = answer
    for status in REFUSALS:
        with stage.lb.connect() as sock:
            upgrade = upgrade_request().replace(b"GET /ws", b"GET /ws/" + status.encode())
            sock.sendall(upgrade + f"GET /next/{status} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            sock.sendall(f"GET /last/{status} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            data = received(sock, 3)
        assert re.findall(rb"HTTP/1.1 (\d+) ", data) == [status.encode(), b"200", b"200"]
    asked = re.findall(rb"[A-Z]+ (/\w+/\d+) HTTP/1.1", b"".join(stage.backend.received))
    assert sorted(asked) == sorted(
        f"/{what}/{status}".encode() for what in ("ws", "next", "last") for status in REFUSALS
    )


ORDINARY = {
    "POST": upgrade_request().replace(b"GET /ws", b"POST /ws").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
    "HTTP/1.0": upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "h2c": upgrade_request().replace(b"Upgrade: websocket", b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
    "two protocols": upgrade_request().replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
    "without Connection": upgrade_request().replace(b"Connection: Upgrade\r\n", b""),
    "OPTIONS": upgrade_request().replace(b"GET /ws", b"OPTIONS *"),
}


def test_every_other_upgrade_is_an_ordinary_request(stage: Stage) -> None:
    for name, request in ORDINARY.items():
        with stage.lb.connect() as sock:
            sock.sendall(request)
            peer = stage.backend.peer()
            head = bytes(peer.received).lower()
            assert b"\r\nupgrade:" not in head, name
            assert b"http2-settings" not in head, name
            assert not re.search(rb"\r\nconnection:[^\r]*upgrade", head), name
            peer.send(
                OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            )  # the next one gets a connection of its own
            assert received(sock, 1).startswith(b"HTTP/1.1 200 OK\r\n"), name


def test_a_backend_that_switches_unasked_or_to_something_else_is_answered_with_502(stage: Stage) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"
    with stage.lb.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        stage.backend.peer().send(switching)
        assert received(sock, 1).startswith(b"HTTP/1.1 502 ")
    with stage.lb.connect() as sock:
        sock.sendall(upgrade_request())
        stage.backend.peer().send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert received(sock, 1).startswith(b"HTTP/1.1 502 ")
