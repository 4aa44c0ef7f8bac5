"""The list of open connections, and the end of one by hand, over the whole stack of a worker."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from support.peer import Peer
from support.proxy import GET, LANES, OK, Proxy, Setup, answering, get, never_answering, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.link.messages import AskConnections, ConnectionRow, Connections
from lbproxy.settings import DrainSettings
from lbproxy.worker import connection_list
from lbproxy.worker.connection_list import ConnectionList

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"


async def ask(found: ConnectionList, **asked) -> tuple[list[ConnectionRow], bool]:
    pieces: list[Connections] = []
    await found.answer(AskConnections(1, **{"after": 0, "limit": 1000, **asked}), pieces.append)
    assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return [row for piece in pieces for row in piece.rows], pieces[-1].has_more


@contextmanager
def listing(lb: Proxy) -> Iterator[ConnectionList]:
    found = ConnectionList(lb.lanes, lb.acceptor)
    yield found
    lb.reactor.disarm(found)


def name_of(peer: Peer) -> str:
    host, port = peer.sock.getsockname()
    return f"{host}:{port}"


@pytest.mark.parametrize("lane", LANES)
@trio_test(timeout_s=8)
async def test_a_request_in_hand_is_cut_and_its_connection_ends(lane: str) -> None:
    async with proxy(lane, never_answering) as lb:
        with listing(lb) as found:
            client = await lb.client()
            await client.send(GET)
            await wait_until(lambda: lb.leases and lb.backends[0].received)
            ((row,), _) = await ask(found)
            assert (row.client, row.listener, row.kind, row.backend) == (
                name_of(client),
                "public",
                "request",
                "web.1@1",
            )
            assert (row.rule, row.grace_s, row.left_s) == ("request", 30.0, None)
            assert found.close(row.number) == "cut"
            assert (await client.answer()).status == 503
            assert await client.rest() == b""
            await wait_until(lambda: not lb.lanes.connections)
            assert lb.count(Counter.CUT) == 1
            assert found.close(row.number) == ""


@pytest.mark.parametrize("lane", LANES)
@trio_test(timeout_s=8)
async def test_an_idle_connection_is_closed(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        with listing(lb) as found:
            client = await lb.client()
            await client.send(GET)
            assert (await client.answer()).status == 200
            ((row,), _) = await ask(found)
            assert (row.kind, row.backend, row.rule) == ("idle", None, None)
            assert found.close(row.number) == "closed"
            assert await client.rest() == b""
            await wait_until(lambda: not lb.lanes.connections)


@trio_test(timeout_s=8)
async def test_a_request_that_waits_for_a_backend_is_listed_and_let_go() -> None:
    for mode, kind in (("http", "request"), ("tcp", "tcp")):
        async with proxy("express", never_answering, setup=Setup(mode=mode)) as lb:
            lb.publish()
            with listing(lb) as found:
                client = await lb.client()
                await client.send(GET)
                await wait_until(lambda lb=lb: lb.router.waiting("web") == 1)
                ((row,), _) = await ask(found)
                assert (row.kind, row.backend) == (kind, None)
                assert found.close(row.number) == "closed"
                assert await client.rest() == b""
                lb.publish(0)
                await wait_until(lambda lb=lb: not lb.lanes.connections)


@trio_test(timeout_s=8)
async def test_a_stream_ends_behind_an_event_within_its_grace() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        await peer.wait_ended()

    async with proxy("express", script, setup=Setup(drain=DrainSettings(stream_s=7.0))) as lb:
        with listing(lb) as found:
            client = await lb.client()
            await client.send(GET)
            await client.until(b"data: 1\n\n")
            ((row,), _) = await ask(found)
            assert (row.kind, row.rule, row.grace_s) == ("stream", "stream", 7.0)
            assert found.close(row.number) == "goodbye"
            assert (await client.rest()).endswith(b"0\r\n\r\n")
            await wait_until(lambda: not lb.lanes.connections)
            assert lb.count(Counter.CUT) == 0


@trio_test(timeout_s=8)
async def test_a_drain_shows_what_is_left_of_each_grace() -> None:
    async with proxy("express", never_answering, never_answering) as lb:
        with listing(lb) as found:
            clients = [await lb.client() for _ in range(4)]
            for client in clients:
                await client.send(GET)
            await wait_until(lambda: lb.leases == 4)
            lb.publish(1)
            rows, _ = await ask(found, backends=("web.1@1",))
            assert len(rows) == 2
            assert all(row.left_s is not None and 25 < row.left_s <= 30 for row in rows)
            assert len((await ask(found, pool="web"))[0]) == 4
            assert (await ask(found, pool="other"))[0] == []


@trio_test(timeout_s=8)
async def test_pages_hold_each_connection_once_in_the_order_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_list, "PIECE", 3)
    async with proxy("express", answering(OK)) as lb:
        with listing(lb) as found:
            clients = [await lb.client() for _ in range(20)]
            await wait_until(lambda: lb.lanes.connections == 20)
            seen: list[ConnectionRow] = []
            has_more = True
            while has_more:
                rows, has_more = await ask(found, after=seen[-1].number if seen else 0, limit=7)
                assert len(rows) == min(7, 20 - len(seen))
                seen += rows
            assert {row.client for row in seen} == set(map(name_of, clients))
            assert [row.number for row in seen] == sorted({row.number for row in seen})


@trio_test(timeout_s=8)
async def test_bytes_are_those_of_the_last_seconds_and_looks_are_forgotten_when_nobody_asks() -> None:
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)
    async with proxy("express", answering(big)) as lb:
        with listing(lb) as found:
            client = await lb.client()
            await wait_until(lambda: lb.lanes.connections == 1)
            ((row,), _) = await ask(found)
            assert row.moved_bytes == 0
            for _ in range(3):
                await client.send(GET)
                assert len((await client.answer()).body) == 100_000
            ((row,), _) = await ask(found)
            assert row.moved_bytes is not None
            assert row.moved_bytes >= 300_000
            assert row.silent_s is not None
            assert row.silent_s < 5
            assert found._looks
            found.on_deadline()
            assert not found._looks
            assert not found._list


@trio_test(timeout_s=8)
async def test_a_client_at_the_front_door_is_listed_and_closed() -> None:
    async with proxy("express", answering(OK), setup=Setup(proxy_protocol="accept", trusted=("127.0.0.0/8",))) as lb:
        with listing(lb) as found:
            client = await lb.client()
            await wait_until(lambda: lb.acceptor.admitting)
            ((row,), _) = await ask(found)
            assert (row.client, row.kind) == (name_of(client), "idle")
            assert found.close(row.number) == "closed"
            assert await client.rest() == b""
            announced = await lb.client()
            await announced.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n" + get(b"/"))
            await announced.answer()
            ((row,), _) = await ask(found)
            assert row.client == "192.0.2.7"
            await trio.lowlevel.checkpoint()
