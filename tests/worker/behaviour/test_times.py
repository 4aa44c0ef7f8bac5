"""Every wait has an end: slow heads, slow bodies, slow answers, and who is silent altogether."""

from functools import partial

import pytest
import trio
import trio.testing
from support.peer import Ended, Peer
from support.proxy import (
    GET,
    LANES,
    OK,
    Setup,
    answering,
    every_lane,
    get,
    lanes,
    never_answering,
    post,
    proxy,
    wait_until,
)
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import ListenerTimeouts, PoolTimeouts

SHORT_S = 0.3
QUICK_CLIENTS = Setup(timeouts=ListenerTimeouts(header_s=SHORT_S, idle_s=SHORT_S, body_s=SHORT_S))
QUICK_BACKENDS = Setup(pool_timeouts=PoolTimeouts(response_s=SHORT_S, idle_s=SHORT_S))


async def drip(peer: Peer, data: bytes) -> None:
    """A byte now and then, for ever."""
    try:
        while True:
            await peer.send(data)
            await trio.sleep(SHORT_S / 6)
    except Ended:
        return


@lanes
@pytest.mark.parametrize("drips", [False, True], ids=["silent", "dripping"])
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "kept"])
@trio_test(timeout_s=8)
async def test_a_head_that_is_too_slow_is_a_408(lane: str, before: bytes, drips: bool) -> None:
    async with proxy(lane, answering(OK), setup=QUICK_CLIENTS) as lb, trio.open_nursery() as nursery:
        client = await lb.client()
        if before:
            await client.send(before)
            await client.answer()
        began = trio.current_time()
        await client.send(b"GET / HTTP/1.1\r\nHost: a.example\r\nA: ")
        if drips:
            nursery.start_soon(drip, client, b"x")
        answer = await client.answer()
        assert answer.status == 408
        assert answer.get(b"connection") == b"close"
        assert SHORT_S * 0.9 <= trio.current_time() - began < SHORT_S * 4
        assert await client.rest() == b""
        assert lb.backends[0].received.count(b"\r\n\r\n") == (1 if before else 0)
        nursery.cancel_scope.cancel()


@lanes
@trio_test(timeout_s=8)
async def test_a_client_that_says_nothing_is_let_go_silently(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=QUICK_CLIENTS) as lb:
        silent, kept = await lb.client(), await lb.client()
        await kept.send(GET)
        assert (await kept.answer()).status == 200
        assert await silent.rest() == await kept.rest() == b""
        assert not silent.is_reset
        assert len(lb.records) == 1


@lanes
@pytest.mark.parametrize("size", [10, 100_000], ids=["short", "long"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@trio_test(timeout_s=8)
async def test_a_body_that_stalls_is_a_408(lane: str, framing: str, size: int) -> None:
    async with proxy(lane, answering(OK), setup=QUICK_CLIENTS) as lb:
        client = await lb.client()
        if framing == "length":
            await client.send(post(bytes(size))[:-5])
        else:
            await client.send(get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + b"%x\r\n" % size)
            await client.send(bytes(size - 5))
        answer = await client.answer()
        assert answer.status == 408
        assert await client.rest() == b""
        backend = lb.backends[0]
        if size < 65_536:
            assert not backend.peers
        else:
            await backend.peers[0].wait_ended()  # the request is abandoned
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error, record.head.method) == (408, "http_request_error", b"POST")


@lanes
@pytest.mark.parametrize("size", [30, 100_030], ids=["short", "long"])
@trio_test(timeout_s=8)
async def test_a_body_that_only_crawls_may_take_its_time(lane: str, size: int) -> None:
    async with proxy(lane, answering(OK), setup=QUICK_CLIENTS) as lb:
        client = await lb.client()
        data = post(bytes(size))
        await client.send(data[:-6])
        for at in range(-6, 0):
            await trio.sleep(SHORT_S / 3)
            await client.send(data[at : at + 1 or None])
        assert (await client.answer()).status == 200


@lanes
@pytest.mark.parametrize("drips", ["silent", "dripping", "hinting"])
@pytest.mark.parametrize("asked", [GET, post(b"abc"), post(bytes(100_000))], ids=["get", "post", "upload"])
@trio_test(timeout_s=8)
async def test_no_head_in_time_is_a_504(lane: str, drips: str, asked: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if drips == "dripping":
            await peer.send(b"HTTP/1.1 200 OK\r\nA: ")
            await drip(peer, b"x")
        if drips == "hinting":
            await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await peer.wait_ended()
        gone.set()

    async with proxy(lane, script, setup=QUICK_BACKENDS) as lb:
        gone = trio.Event()
        client = await lb.client()
        for number in (1, 2):
            began = trio.current_time()
            await client.send(asked)
            answer = await client.answer()
            assert answer.status == 504
            assert answer.get(b"proxy-status") == b"edge; error=http_response_timeout"
            assert answer.get(b"connection") is None
            assert b"within 0.3s" in answer.body
            assert SHORT_S * 0.9 <= trio.current_time() - began < SHORT_S * 1.9
            await gone.wait()
            record = (await lb.wait_records(number))[-1]
            assert (record.status, record.backend, record.error) == (504, "web.1", "http_response_timeout")
            assert lb.count(Counter.FAILED) == number


@lanes
@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n", b""])
@pytest.mark.parametrize("minor", [1, 0])
@trio_test(timeout_s=8)
async def test_an_answer_that_stalls_in_its_body_is_cut(lane: str, head: bytes, minor: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n3\r\nabc\r\n")
        await peer.wait_ended()

    async with proxy(lane, script, setup=QUICK_BACKENDS) as lb:
        client = await lb.client()
        await client.send(get(b"/", minor=minor))
        with pytest.raises(Ended):
            await client.answer()
        assert client.is_reset == (minor == 0 and b"Length" not in head)
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (200, "connection_read_timeout")
        assert lb.count(Counter.FAILED) == 1


@every_lane
@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["silent_backend", "silent_client"])
@trio_test(timeout_s=8)
async def test_of_two_who_wait_for_each_other_the_one_to_blame_is_told(lane: str, says: bytes) -> None:
    """A client that waits for its 100 is not slow; once it has it, it is."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await trio.sleep(SHORT_S)
        await peer.send(says)
        await peer.wait_ended()

    setup = Setup(timeouts=ListenerTimeouts(body_s=SHORT_S / 2), pool_timeouts=PoolTimeouts(response_s=SHORT_S * 1.5))
    async with proxy(lane, script, setup=setup) as lb:
        began = trio.current_time()
        answer = await lb.ask(get(b"/", b"Content-Length: 3", b"Expect: 100-continue", method=b"PUT"))
        assert answer.status == (408 if says else 504)
        assert SHORT_S * 1.4 < trio.current_time() - began < SHORT_S * 4


@lanes
@trio_test(timeout_s=8)
async def test_an_answer_that_crawls_may_take_its_time(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        for _ in range(6):
            await trio.sleep(SHORT_S / 3)
            await peer.send(b"x")

    async with proxy(lane, script, setup=QUICK_BACKENDS) as lb:
        assert (await lb.ask(GET)).body == b"xxxxxx"


@lanes
@pytest.mark.parametrize("size", [60_000, 10_000_000], ids=["short", "long"])
@trio_test(timeout_s=8)
async def test_a_client_that_reads_nothing_is_let_go(lane: str, size: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    setup = Setup(timeouts=ListenerTimeouts(body_s=SHORT_S), send_bytes=4096)
    async with proxy(lane, answering(answer), setup=setup) as lb:
        client = await lb.client(receive_bytes=2048)
        await client.send(GET)
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (200, "client_gone")
        await wait_until(lambda: not lb.lanes.connections)
        with pytest.raises(Ended):
            await client.answer()


@trio_test(timeout_s=8)
async def test_an_error_page_of_both_lanes_says_the_same() -> None:
    pages = []
    for lane in LANES:
        async with proxy(lane, never_answering, setup=QUICK_BACKENDS) as lb:
            page = await lb.ask(get(b"/", b"Accept: application/json"))
            pages.append(page.raw.replace(page.get(b"x-request-id") or b"?", b"id"))
    assert pages[0] == pages[1]


@lanes
@trio_test(timeout_s=8)
async def test_a_thousand_slow_heads_keep_nobody_waiting(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=QUICK_CLIENTS) as lb, trio.open_nursery() as nursery:
        refused = 0

        async def hear(client: Peer) -> None:
            nonlocal refused
            answer = await client.answer()
            refused += answer.status == 408

        async with trio.open_nursery() as hearing:
            for _ in range(300):
                client = await lb.client()
                await client.send(b"GET / HTTP/1.1\r\nA: ")
                nursery.start_soon(partial(drip, client, b"x"))
                hearing.start_soon(hear, client)
            for _ in range(20):
                assert (await lb.ask(GET)).status == 200
        assert refused == 300
        nursery.cancel_scope.cancel()


@every_lane
@trio_test(timeout_s=8)
async def test_the_time_that_a_client_takes_for_its_body_counts(lane: str) -> None:
    """Else nobody finds the slow ones in the log."""
    async with proxy(lane, answering(OK), setup=QUICK_CLIENTS) as lb:
        client = await lb.client()
        for piece in (post(b"abc")[:-3], b"a", b"bc"):
            await client.send(piece)
            await trio.sleep(SHORT_S / 2)
        assert (await client.answer()).status == 200
        stalled = await lb.client()
        await stalled.send(post(b"abc")[:-1])
        assert (await stalled.answer()).status == 408
        await lb.wait_records(2)
        whole, broken = lb.records
        assert SHORT_S * 0.9 < whole.duration_s < 5
        assert SHORT_S * 0.9 < broken.duration_s < 5
