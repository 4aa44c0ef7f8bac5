"""Backends that speak HTTP/2: heads, bodies and trailers both ways, streams that share connections, and every end."""

from contextlib import suppress

import pytest
import trio
from h2.settings import SettingCodes
from hyperframe.frame import PingFrame
from support.http2_backend import Http2Peer, serving, speak
from support.peer import Ended, Peer
from support.proxy import GET, get, post, post_chunked, proxy, together, wait_until
from support.setup import Setup
from support.trio_test import trio_test

from lbproxy.settings import PoolTimeouts

HTTP2 = Setup(is_http2=True)
lanes = pytest.mark.parametrize("lane", ["express", "tls"])


@lanes
@trio_test(timeout_s=8)
async def test_a_request_of_http1_is_one_stream_and_the_next_one_shares_the_connection(lane: str) -> None:
    heads: list[dict[bytes, bytes]] = []

    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        while True:
            asked = await h2.request()
            heads.append(asked.fields)
            assert not asked.body
            await h2.answer(asked.id, b"hello", (b"x-kind", b"plain"))

    async with proxy(lane, script, setup=HTTP2) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(get(b"/a?b", b"X-One: 1", b"Connection: X-Hop", b"X-Hop: 1", b"Cookie: a=b"))
            answer = await client.answer()
            assert (answer.status, answer.body, answer.get(b"x-kind")) == (200, b"hello", b"plain")
        assert len(lb.backends[0].peers) == 1
        head = heads[0]
        assert head[b":method"], head[b":path"] == (b"GET", b"/a?b")
        assert (head[b":scheme"], head[b":authority"]) == (b"http", b"a.example")
        assert (head[b"x-one"], head[b"cookie"], head[b"via"]) == (b"1", b"a=b", b"1.1 lbproxy")
        assert not {b"x-hop", b"connection", b"host", b"transfer-encoding"} & set(head)
        assert [record.status for record in await lb.wait_records(3)] == [200] * 3
        assert lb.lanes.handed_over == {"http2": 3}


@trio_test(timeout_s=8)
async def test_bodies_and_trailers_pass_both_ways() -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        while True:
            asked = await h2.request()
            await h2.head(asked.id, (b"x-length", asked.fields.get(b"content-length", b"none")))
            await h2.data(asked.id, bytes(asked.body))
            await h2.trailers(asked.id, (b"x-sum", b"2"), *asked.trailers, (b"content-length", b"7"))

    async with proxy("express", script, setup=HTTP2) as lb:
        client = await lb.client()
        await client.send(post(b"abc", b"TE: trailers"))
        answer = await client.answer()
        assert (answer.body, answer.get(b"x-length"), answer.trailers) == (b"abc", b"3", [b"x-sum: 2"])
        await client.send(post_chunked(b"one", b"two", trailers=b"X-T: 1\r\n", fields=(b"TE: trailers",)))
        answer = await client.answer()
        assert (answer.body, answer.get(b"x-length")) == (b"onetwo", b"none")
        assert answer.trailers == [b"x-sum: 2", b"x-t: 1"]
        large = bytes(range(256)) * 4096
        await client.send(post(large))
        assert (await client.answer()).body == large


@trio_test(timeout_s=8)
async def test_answers_without_a_body_and_interim_answers() -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        while True:
            asked = await h2.request()
            match asked.fields[b":path"]:
                case b"/head":
                    await h2.head(asked.id, (b"content-length", b"9"), end=True)
                case b"/304":
                    await h2.head(asked.id, (b"etag", b'"a"'), status=b"304", end=True)
                case b"/204":
                    await h2.head(asked.id, status=b"204")
                    await h2.data(asked.id, b"", end=True)
                case b"/empty":
                    await h2.head(asked.id, end=True)
                case _:
                    await h2.head(asked.id, (b"link", b"</a>"), status=b"103")
                    await h2.answer(asked.id, b"late")

    async with proxy("express", script, setup=HTTP2) as lb:
        client = await lb.client()
        await client.send(get(b"/head", method=b"HEAD"))
        assert (await client.answer(b"HEAD")).get(b"content-length") == b"9"
        for path, status in ((b"/304", 304), (b"/204", 204), (b"/empty", 200)):
            await client.send(get(path))
            answer = await client.answer()
            assert (answer.status, answer.body) == (status, b"")
        await client.send(get(b"/103"))
        assert (await client.response()).start.startswith(b"HTTP/1.1 103")
        assert (await client.answer()).body == b"late"
        assert len(lb.backends[0].peers) == 1


@trio_test(timeout_s=8)
async def test_a_client_is_asked_for_its_body_when_the_backend_wants_it() -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        asked = await h2.begun()
        assert asked.fields[b"expect"] == b"100-continue"
        await h2.head(asked.id, status=b"100")
        await h2.until(lambda: asked.ended)
        await h2.answer(asked.id, bytes(asked.body))
        await peer.wait_ended()

    async with proxy("express", script, setup=HTTP2) as lb:
        client = await lb.client()
        await client.send(post(b"", b"Expect: 100-continue").replace(b"Length: 0", b"Length: 3"))
        assert (await client.response()).start.startswith(b"HTTP/1.1 100")
        await client.send(b"abc")
        assert (await client.answer()).body == b"abc"


@trio_test(timeout_s=8)
async def test_streams_share_a_connection_up_to_what_the_backend_allows() -> None:
    release = trio.Event()

    async def script(peer: Peer) -> None:
        h2 = await speak(peer, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 4})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answer_when, release, h2, 4)
            try:
                await h2.until(lambda: False)
            except Ended:
                nursery.cancel_scope.cancel()

    async with proxy("express", script, setup=HTTP2) as lb:
        first = await lb.client()
        await first.send(GET)  # so that the backend's settings are known
        await wait_until(lambda: lb.context.shared.count(lb.view(0)) and lb.leases == 1)
        shared = lb.context.shared._by_cell[lb.view(0).cell][0]
        await wait_until(lambda: shared.has_settings)
        clients = [await lb.client() for _ in range(9)]
        for client in clients:
            await client.send(GET)
        await wait_until(lambda: lb.leases == 10)
        await wait_until(lambda: len(lb.backends[0].peers) == 3)
        release.set()
        for client in (first, *clients):
            assert (await client.answer()).body == b"hello"
        assert len(lb.backends[0].peers) == 3


async def _answer_when(event: trio.Event, h2: Http2Peer, at_most: int) -> None:
    await event.wait()
    done: set[int] = set()
    while True:
        for asked in list(h2.asked.values()):
            if asked.ended and asked.id not in done:
                assert len(h2.asked) - len(done) <= at_most
                done.add(asked.id)
                await h2.answer(asked.id, b"hello")
        await trio.sleep(0.001)


@trio_test(timeout_s=8)
async def test_a_slow_reader_stops_its_own_stream_only() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        h2 = await speak(peer)
        while True:
            asked = await h2.request()
            if asked.fields[b":path"] == b"/large":
                await h2.head(asked.id)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pour, h2, asked.id)
                    while True:
                        asked = await h2.request()
                        await h2.answer(asked.id, b"hello")
            await h2.answer(asked.id, b"hello")

    async def _pour(h2: Http2Peer, stream: int) -> None:
        nonlocal sent
        while True:
            if (size := min(h2.h2.local_flow_control_window(stream), 16384)) > 0:
                h2.h2.send_data(stream, bytes(size))
                sent += size
                await h2.flush()
            await trio.sleep(0.001)

    async with proxy("express", script, setup=Setup(is_http2=True, send_bytes=4096)) as lb:
        slow = await lb.client(receive_bytes=4096)
        await slow.send(get(b"/large"))
        await wait_until(lambda: sent > 100_000)
        quick = await lb.client()
        for _ in range(20):
            await quick.send(GET)
            assert (await quick.answer()).body == b"hello"
            await trio.sleep(0.005)
        before = sent
        await trio.sleep(0.05)
        assert sent == before < 600_000
        slow.close()


@trio_test(timeout_s=8)
async def test_a_backend_that_takes_nothing_stops_the_upload() -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer, holds=True)
        await h2.begun()
        await h2.until(lambda: False)

    setup = Setup(is_http2=True, pool_timeouts=PoolTimeouts(idle_s=0.3))
    async with proxy("express", script, setup=setup) as lb:
        client = await lb.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_what_it_takes, client, post(bytes(5_000_000)))
            assert (await client.answer()).status == 504
            nursery.cancel_scope.cancel()
        assert len(lb.backends[0].received) < 80_000
        assert (await lb.wait_records(1))[0].error == "connection_write_timeout"


async def _send_what_it_takes(client: Peer, data: bytes) -> None:
    with suppress(Ended):
        await client.send(data)


@trio_test(timeout_s=8)
async def test_an_idle_connection_is_closed_and_a_ping_is_answered() -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        asked = await h2.request()
        await h2.frame(PingFrame(opaque_data=b"12345678"))
        await h2.until(lambda: h2.pongs)
        await h2.answer(asked.id, b"hello")
        await peer.wait_ended()

    async with proxy("express", script, setup=Setup(is_http2=True, pool_timeouts=PoolTimeouts(keepalive_s=0.2))) as lb:
        assert (await lb.ask(GET)).status == 200
        assert lb.context.shared.count(lb.view(0)) == 1
        await wait_until(lambda: not lb.context.shared.count(lb.view(0)))


@trio_test(timeout_s=8)
async def test_a_backend_that_has_left_the_table_keeps_no_connection() -> None:
    async with proxy("express", serving(), serving(), setup=HTTP2) as lb:
        await together(*(lambda: lb.ask(GET) for _ in range(4)))
        assert [lb.context.shared.count(lb.view(index)) for index in (0, 1)] == [1, 1]
        lb.publish(1)
        await wait_until(lambda: not lb.context.shared.count(lb.view(0)))
        assert (await lb.ask(GET)).status == 200
