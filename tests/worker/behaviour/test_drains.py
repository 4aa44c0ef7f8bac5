"""A backend that leaves the table: its work finishes, or outlasts its grace and is answered honestly, or cut."""

import pytest
import trio
import trio.testing
from support.peer import Ended, Peer
from support.proxy import (
    GET,
    LANES,
    OK,
    Proxy,
    Setup,
    answering,
    every_lane,
    get,
    lanes,
    never_answering,
    post,
    post_chunked,
    proxy,
    wait_until,
)
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.model import BackendId
from lbproxy.settings import DrainSettings

WEB_1 = BackendId("web", 1, 1)
SHORT = Setup(drain=DrainSettings(request_s=0.2, transfer_s=0.5, stream_s=0.2))


@lanes
@trio_test(timeout_s=8)
async def test_an_idle_backend_is_drained_at_once_and_its_connections_are_closed(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        await client.send(GET)
        await client.answer()
        lb.publish()
        assert lb.drained == [WEB_1]
        await wait_until(lambda: lb.backends[0].peers[0].sock.fileno() < 0)


@lanes
@trio_test(timeout_s=8)
async def test_what_is_in_flight_finishes_and_what_comes_goes_elsewhere(lane: str) -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.send(OK)
        await peer.wait_ended()

    async with proxy(lane, slow, answering(OK)) as lb:
        go_on = trio.Event()
        lb.publish(0)
        client = await lb.client()
        await client.send(GET + GET)
        await wait_until(lambda: lb.leases == 1)
        lb.publish(1)
        assert WEB_1 not in lb.drained
        assert (await lb.ask(GET)).status == 200
        go_on.set()
        assert (await client.answer()).body == (await client.answer()).body == b"hello"
        assert lb.drained[-1] == WEB_1
        assert lb.count(Counter.CUT) == 0
        assert [record.backend for record in await lb.wait_records(3)] == ["web.2", "web.1", "web.2"]


async def _outlasted(lb: Proxy, asked: bytes) -> None:
    """It has been sent, and its backend leaves."""
    client = await lb.client()
    await client.send(asked)
    await wait_until(lambda: lb.leases == 1)
    await trio.testing.wait_all_tasks_blocked(0.01)
    lb.publish()
    answer = await client.answer()
    replayable = asked.startswith(b"GET")
    assert answer.status == (503 if replayable else 504)
    assert answer.get(b"retry-after") == (b"1" if replayable else None)
    assert (lb.count(Counter.CUT), lb.count(Counter.FAILED), lb.count(Counter.REQUESTS)) == (1, 1, 1)
    assert lb.drained == [WEB_1]
    (record,) = await lb.wait_records(1)
    assert (record.status, record.backend) == (answer.status, "web.1")
    assert record.error == ("destination_unavailable" if replayable else "http_response_timeout")


@every_lane
@pytest.mark.parametrize(
    "asked",
    [GET, post(b"abc"), post(bytes(100_000)), post_chunked(b"abc"), post(bytes(100_000))[:-10]],
    ids=["get", "post", "upload", "chunks", "unfinished"],
)
@trio_test(timeout_s=8)
async def test_a_request_that_outlasts_its_grace_is_answered_if_no_byte_went_out(lane: str, asked: bytes) -> None:
    async with proxy(lane, never_answering, setup=SHORT) as lb:
        began = trio.current_time()
        await _outlasted(lb, asked)
        assert trio.current_time() - began < 2


PARTS = {
    "length": b"Content-Length: 100\r\n\r\npart",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    "close": b"\r\npart",
}


@lanes
@pytest.mark.parametrize("framing", PARTS)
@pytest.mark.parametrize("minor", [1, 0])
@trio_test(timeout_s=8)
async def test_an_answer_that_outlasts_its_grace_is_cut(lane: str, framing: str, minor: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + PARTS[framing])
        await peer.wait_ended()

    async with proxy(lane, script, setup=SHORT) as lb:
        client = await lb.client()
        await client.send(get(b"/", minor=minor))
        await client.until(b"part")
        client.buffer[:] = client.received
        lb.publish()
        with pytest.raises(Ended):
            await client.answer()
        assert client.is_reset == (framing != "length" and not minor)
        assert (lb.count(Counter.CUT), lb.count(Counter.FAILED)) == (1, 1)
        await wait_until(lambda: lb.drained == [WEB_1])


@pytest.mark.parametrize("framing", PARTS)
@trio_test(timeout_s=8)
async def test_both_lanes_say_the_same_of_a_cut_answer(framing: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + PARTS[framing])
        await peer.wait_ended()

    said = []
    for lane in LANES:
        async with proxy(lane, script, setup=SHORT) as lb:
            client = await lb.client()
            await client.send(GET)
            await client.until(b"part")
            lb.publish()
            await client.rest()
            (record,) = await lb.wait_records(1)
            said.append((record.status, record.response_bytes, record.error))
    assert said[0] == said[1]


@lanes
@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@trio_test(timeout_s=8)
async def test_a_transfer_that_moves_outlasts_the_grace_of_requests_up_to_a_cap(
    lane: str, framing: str, direction: str
) -> None:
    field = b"Content-Length: 100000000\r\n" if framing == "length" else b"Transfer-Encoding: chunked\r\n"
    piece = b"a\r\n0123456789\r\n"

    async def script(peer: Peer) -> None:
        if direction == "up":
            await peer.wait_ended()
            return
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n")
        while True:
            await peer.send(piece)
            await trio.sleep(0.02)

    async def upload(client: Peer) -> None:
        try:
            while True:
                await client.send(piece)
                await trio.sleep(0.02)
        except Ended:
            return

    async with proxy(lane, script, setup=SHORT) as lb, trio.open_nursery() as nursery:
        client = await lb.client()
        if direction == "up":
            await client.send(get(b"/", field.strip(), method=b"POST") + b"fffff\r\n" + bytes(100_000))
            nursery.start_soon(upload, client)
        else:
            await client.send(GET)
        await wait_until(lambda: lb.count(Counter.TRANSFER) == 1)
        lb.publish()
        began = trio.current_time()
        if direction == "up":
            assert (await client.answer()).status == 504
        else:
            assert len(await client.rest()) > 200
        assert 0.4 < trio.current_time() - began < 1.5
        assert lb.count(Counter.CUT) == 1
        nursery.cancel_scope.cancel()


@every_lane
@trio_test(timeout_s=8)
async def test_a_backend_that_is_taken_back_cuts_nobody(lane: str) -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await trio.sleep(0.4)
        await peer.send(OK)
        await peer.wait_ended()

    async with proxy(lane, slow, setup=SHORT) as lb:
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.leases == 1)
        lb.publish()
        await trio.sleep(0.05)
        lb.publish(0)
        assert (await client.answer()).status == 200
        assert lb.count(Counter.CUT) == 0
        assert not lb.drained


@every_lane
@trio_test(timeout_s=8)
async def test_who_waits_for_a_slow_reader_is_not_held_up_when_the_answer_is_in_hand(lane: str) -> None:
    """The backend is done with it, so its drain is over, whatever the client does."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000)
    async with proxy(lane, answering(answer), setup=Setup(send_bytes=4096)) as lb:
        client = await lb.client(receive_bytes=2048)
        await client.send(GET)
        await wait_until(lambda: lb.backends[0].received)
        lb.publish()
        await wait_until(lambda: lb.drained == [WEB_1])
        assert len((await client.answer()).body) == 50_000


@lanes
@trio_test(timeout_s=8)
async def test_a_worker_that_stops_finishes_what_is_in_hand_and_lets_the_idle_go(lane: str) -> None:
    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await go_on.wait()
            await peer.send(OK)

    async with proxy(lane, slow) as lb:
        go_on = trio.Event()
        idle, busy, ahead = await lb.client(), await lb.client(), await lb.client()
        for client in (busy, ahead):
            await client.send(GET)
        await wait_until(lambda: lb.leases == 2)
        await ahead.send(GET)
        lb.acceptor.leave_all()
        lb.lanes.stop(30.0)
        assert await idle.rest() == b""
        go_on.set()
        for client in (busy, ahead):
            answer = await client.answer()
            assert (answer.status, answer.get(b"connection")) == (200, b"close")
            assert await client.rest() == b""
            assert not client.is_reset
            client.close()
        await wait_until(lambda: not lb.lanes.connections)
