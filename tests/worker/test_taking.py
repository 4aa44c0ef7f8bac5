"""A worker takes a connection whole or not at all. What it cannot take it says, and nothing of it is left."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trio
from support.peer import Peer
from support.proxy import FIRST_CELL, GET, LISTENER_CELL, OK, Setup, answering, get, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.link.moved import (
    MovedClient,
    MovedConnection,
    MovedKind,
    MovedLease,
    MovedRelay,
    MovedRequest,
    MovedSide,
    base64_of,
)
from lbproxy.model import BackendId, BackendView
from lbproxy.wire.websocket import FramePosition, close_frame
from lbproxy.worker.express.client import ExpressClient
from lbproxy.worker.taking import Taker

CLIENT = MovedClient("192.0.2.7")
IDLE = MovedConnection(MovedKind.IDLE, 1, CLIENT, 0.5)
PLACE = FramePosition(0, "", False, False, 3, 3)
REQUEST = MovedRequest(
    1e9, "GET", "/chat?ä", "a.example", 1, 101, "id-1", {"user-agent": ("Mozilla",), "referer": ("/",)}
)


@contextmanager
def connection() -> Iterator[tuple[Peer, int]]:
    """A peer, and the descriptor of its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    near.setblocking(False)
    peer = Peer(trio.socket.from_stdlib_socket(near))
    yield peer, far.detach()
    peer.close()


def relay_of(held: BackendView, **more: object) -> MovedRelay:
    value = MovedRelay(MovedLease(held, 2.0), MovedSide(base64_of(b"to client"), 4), MovedSide(base64_of(b"to b"), 13))
    return replace(value, **more)  # type: ignore[arg-type]


@trio_test(timeout_s=8)
async def test_an_idle_connection_is_served_from_the_bytes_that_had_come() -> None:
    async with proxy("express", answering(OK)) as lb:
        taker = Taker(lb.lanes)
        with connection() as (client, fd):
            assert taker.take(replace(IDLE, received=base64_of(GET[:9])), [fd]) == ""
            assert lb.grid.sum(LISTENER_CELL, Counter.CONNECTIONS) == 1
            await client.send(GET[9:])
            assert (await client.answer()).status == 200
            assert lb.records[0].client == b"192.0.2.7"
        await wait_until(lambda: not lb.lanes.connections)


@trio_test(timeout_s=8)
async def test_the_listener_decides_whether_the_client_is_believed() -> None:
    async with proxy("express", answering(OK), setup=Setup(trusted=("192.0.2.0/24",))) as lb:
        taker = Taker(lb.lanes)
        with connection() as (client, fd):
            assert taker.take(replace(IDLE, client=MovedClient("192.0.2.7", 4711)), [fd]) == ""
            (record,) = lb.lanes.records
            assert isinstance(record, ExpressClient)
            assert (record.facts.ip, record.facts.port, record.facts.trusted) == (b"192.0.2.7", 4711, True)
            await client.send(get(b"/", b"X-Forwarded-For: 203.0.113.9"))
            assert (await client.answer()).status == 200
            assert lb.records[0].client == b"203.0.113.9"
        await wait_until(lambda: not lb.lanes.connections)


@trio_test(timeout_s=8)
async def test_a_websocket_goes_on_and_its_line_has_what_it_was_and_all_that_it_moved() -> None:
    async with proxy("express", answering(OK)) as lb:
        taker = Taker(lb.lanes)
        relay = relay_of(lb.view(0), from_client=PLACE, from_backend=PLACE, request=REQUEST)
        with connection() as (client, one), connection() as (backend, other):
            assert taker.take(MovedConnection(MovedKind.WEBSOCKET, 1, CLIENT, 7.0, relay=relay), [one, other]) == ""
            assert lb.count(Counter.WEBSOCKET) == lb.count(Counter.LEASES) == 1
            await client.send(close_frame(1000, "", b"\0\0\0\0"))
            assert await backend.exactly(12) == b"to b" + close_frame(1000, "", b"\0\0\0\0")
            await backend.send(close_frame(1000, "", None))
            backend.end()
            assert await client.rest() == b"to client" + close_frame(1000, "", None)
            client.end()
            (record,) = await lb.wait_records(1)
            assert (record.request_bytes, record.response_bytes) == (12, 17)
            assert 7.0 < record.duration_s < 8.0
            assert (record.time, record.head.target, record.request_id) == (1e9, "/chat?ä".encode("latin-1"), b"id-1")
            assert record.head.fields[b"user-agent"] == [b"Mozilla"]
            assert record.served_by == BackendId("web", 1, 1)
        assert lb.count(Counter.REQUESTS) == 1


@trio_test(timeout_s=8)
async def test_a_descriptor_that_is_no_socket_is_refused_and_closed() -> None:
    async with proxy("express", answering(OK)) as lb:
        assert "non-socket" in Taker(lb.lanes).take(IDLE, [os.memfd_create("none")])
        assert lb.lanes.connections == 0


@pytest.mark.parametrize(
    ("moved", "why"),
    [
        (replace(IDLE, listener=9), "listener 9 is not in the table"),
        (replace(IDLE, received="no base64!"), "base64"),
        (replace(IDLE, client=MovedClient("Ω")), "does not appear to be an IPv4 or IPv6 address"),
        (replace(IDLE, kind=MovedKind.TCP), "a relay without what it has in hand"),
        ("tcp of a backend", r"other\.1@1 is not in the table"),
        ("tcp of bad bytes", "padding"),
        ("websocket without frames", "without its place in the frames"),
        ("websocket without request", "an upgraded connection without its request"),
    ],
)
@trio_test(timeout_s=8)
async def test_what_cannot_be_taken_is_said_and_leaves_nothing(moved: MovedConnection | str, why: str) -> None:
    async with proxy("express", answering(OK), setup=Setup()) as lb:
        known = lb.view(0)
        if moved == "tcp of a backend":
            unknown = BackendView(BackendId("other", 1, 1), known.address, FIRST_CELL + 5)
            moved = MovedConnection(MovedKind.TCP, 1, CLIENT, 1.0, relay=relay_of(unknown))
        elif moved == "tcp of bad bytes":
            relay = relay_of(known, backend=MovedSide("abc", 1))
            moved = MovedConnection(MovedKind.TCP, 1, CLIENT, 1.0, relay=relay)
        elif moved == "websocket without frames":
            relay = relay_of(known, request=REQUEST)
            moved = MovedConnection(MovedKind.WEBSOCKET, 1, CLIENT, 1.0, relay=relay)
        elif moved == "websocket without request":
            moved = MovedConnection(MovedKind.WEBSOCKET, 1, CLIENT, 1.0, relay=relay_of(known))
        assert isinstance(moved, MovedConnection)
        with connection() as (client, one), connection() as (backend, other):
            fds = [one, other] if moved.relay is not None else [one]
            answer = Taker(lb.lanes).take(moved, fds)
            assert why.replace("\\", "") in answer.lower() or why.replace("\\", "") in answer
            assert await client.rest() == b""
            if moved.relay is not None:
                assert await backend.rest() == b""
            else:
                socket.socket(fileno=other).close()
        assert lb.leases == lb.lanes.connections == 0
        assert lb.grid.sum(LISTENER_CELL, Counter.CONNECTIONS) == 0
