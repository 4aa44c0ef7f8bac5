"""A tcp listener that routes by the name in a ClientHello, and what it makes of clients that send none."""

import ssl

import pytest
import trio
from support.peer import Peer
from support.proxy import Setup, proxy
from support.trio_test import trio_test

from lbproxy.settings import ListenerTimeouts, RouteSettings
from lbproxy.wire.client_hello import ClientHelloReader
from lbproxy.worker.front import server_name
from lbproxy.worker.relay.tcp import UNRECOGNIZED_NAME

BY_NAME = (RouteSettings("gone", "a.example", "/path/"), RouteSettings("web", "a.example"))


def hello(name: str | None) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


async def echo(peer: Peer) -> None:
    while data := await peer.sock.recv(4096):
        await peer.send(data)
    peer.end()
    await peer.wait_ended()


async def greeting(peer: Peer) -> None:
    await peer.send(b"220 hello\r\n")
    await echo(peer)


def setup(pool: str | None = None, **texts: object) -> Setup:
    return Setup(mode="tcp", routes=BY_NAME, pool=pool, **texts)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [1, 50, 10_000])
@trio_test(timeout_s=8)
async def test_a_name_that_a_route_has_reaches_its_pool_with_every_byte(step: int) -> None:
    async with proxy("express", echo, setup=setup()) as lb:
        client = await lb.client()
        data = hello("A.example")
        await client.dribble(data, step)
        assert await client.exactly(len(data)) == data
        await client.send(b"more")
        assert await client.exactly(4) == b"more"
        client.end()
        assert await client.rest() == b""
        (record,) = await lb.wait_records(1)
        assert (record.status, record.head.host, record.request_bytes) == (200, b"a.example", len(data) + 4)


@trio_test(timeout_s=8)
async def test_a_name_that_nobody_has_is_answered_with_an_alert() -> None:
    async with proxy("express", echo, setup=setup()) as lb:
        client = await lb.client()
        await client.send(hello("b.example"))
        assert await client.rest() == UNRECOGNIZED_NAME
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (404, "destination_not_found")
        assert lb.backends[0].peers == []


@pytest.mark.parametrize("said", [hello("b.example"), hello(None), b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00\x00"])
@trio_test(timeout_s=8)
async def test_what_asks_for_no_name_that_a_route_has_goes_to_the_pool_of_the_listener(said: bytes) -> None:
    async with proxy("express", echo, setup=setup("web")) as lb:
        client = await lb.client()
        await client.send(said)
        assert await client.exactly(len(said)) == said


@trio_test(timeout_s=8)
async def test_where_the_server_speaks_first_the_client_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_name.ServerNameStage, "silent_s", 0.05)
    async with proxy("express", greeting, setup=setup("web")) as lb:
        client = await lb.client()
        assert await client.exactly(11) == b"220 hello\r\n"
        await client.send(b"EHLO a\r\n")
        assert await client.exactly(8) == b"EHLO a\r\n"


@trio_test(timeout_s=8)
async def test_half_a_hello_is_not_silence_and_is_waited_for_as_long_as_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_name.ServerNameStage, "silent_s", 0.05)
    async with proxy("express", echo, setup=setup("web", timeouts=ListenerTimeouts(header_s=0.3))) as lb:
        lb.expected_notices = 1
        client, began = await lb.client(), trio.current_time()
        await client.send(hello("a.example")[:50])
        assert await client.rest() == b""
        assert 0.2 < trio.current_time() - began < 3
        assert "within 0.3s" in lb.notices[0]


@trio_test(timeout_s=8)
async def test_behind_a_proxy_header_the_name_is_read_as_well() -> None:
    trusting = setup(proxy_protocol="accept", trusted=("127.0.0.0/8",))
    async with proxy("express", echo, setup=trusting) as lb:
        said = hello("a.example")
        for step in (1, 10_000):
            client = await lb.client()
            await client.dribble(b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 443\r\n" + said, step)
            assert await client.exactly(len(said)) == said
            client.close()
        records = await lb.wait_records(2)
        assert {(record.client, record.head.host) for record in records} == {(b"192.0.2.7", b"a.example")}


@trio_test(timeout_s=8)
async def test_without_such_routes_nothing_is_read() -> None:
    plain = Setup(mode="tcp", routes=(RouteSettings("web", path="/v1/"),))
    async with proxy("express", greeting, setup=plain) as lb:
        client = await lb.client()
        assert await client.exactly(11) == b"220 hello\r\n"
        assert not lb.acceptor.admitting


def test_the_bytes_of_a_stage_are_read_once() -> None:
    stage, data = server_name.ServerNameStage(), hello("a.example")
    assert [stage.feed(data[:end]) for end in range(1, len(data))] == [None] * (len(data) - 1)
    passed = stage.feed(data)
    assert passed is not None
    assert (passed.early, passed.facts, passed.server_name) == (data, None, "a.example")
    assert ClientHelloReader().feed(passed.early) is not None
