"""Who asks first whether its body is wanted, and who is answered before it has said all."""

import pytest
import trio
import trio.testing
from support.bodies import LARGE, framed
from support.peer import Peer
from support.proxy import OK, every_lane, get, lanes, post, proxy
from support.trio_test import trio_test

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@every_lane
@trio_test(timeout_s=8)
async def test_who_expects_100_gets_it_from_the_backend(lane: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            assert head.get(b"expect") == b"100-continue"
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not peer.buffer
            await peer.send(CONTINUE)
            request = await peer._with_body(head, until_end=False)
            assert request.body == b"abc"
            await peer.send(OK)

    async with proxy(lane, script) as lb:
        client = await lb.client()
        for field, body in (
            (b"Content-Length: 3", b"abc"),
            (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"),
        ):
            await client.send(get(b"/", field, b"Expect: 100-continue", method=b"PUT"))
            assert (await client.response()).status == 100
            await client.send(body)
            assert (await client.response()).body == b"hello"


@every_lane
@trio_test(timeout_s=8)
async def test_who_does_not_wait_for_its_100_is_served_too(lane: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.send(CONTINUE)
            await peer.exactly(3)
            await peer.send(OK)

    async with proxy(lane, script) as lb:
        client = await lb.client()
        for _ in range(2):
            await client.send(post(b"abc", b"Expect: 100-continue"))
            assert [(await client.response()).status for _ in range(2)] == [100, 200]


@lanes
@trio_test(timeout_s=8)
async def test_who_is_told_no_need_not_send_its_body(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        await peer.wait_ended()

    async with proxy(lane, script) as lb:
        answer = await lb.ask(get(b"/", b"Content-Length: 3", b"Expect: 100-continue", method=b"PUT"))
        assert answer.status == 401
        assert answer.get(b"connection") == b"close"  # nobody can tell whether the body will come


@lanes
@pytest.mark.parametrize("then", ["stays", "ends", "resets"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@trio_test(timeout_s=20)
async def test_an_early_answer_reaches_a_client_that_is_still_sending(lane: str, framing: str, then: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.exactly(100_000)
        await peer.send(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
        if then == "stays":
            await peer.wait_ended()
        elif then == "resets":
            peer.reset()

    field, pieces = framed(LARGE, framing)
    async with proxy(lane, script) as lb:
        client = await lb.client()
        await client.send(get(b"/", field, method=b"POST"))
        for piece in pieces:
            await client.send(piece)
        answer = await client.answer()
        assert (answer.status, answer.body) == (413, b"no")
        assert answer.get(b"connection") == b"close"
        assert await client.rest() == b""
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (413, None)
        assert 100_000 <= record.request_bytes < len(LARGE)
