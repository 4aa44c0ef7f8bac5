"""The express lane's way back: heads that repeat, framings, and when a backend's connection may serve again."""

import pytest
import trio
from support.peer import Peer
from support.proxy import GET, OK, answering, get, post, proxy, wait_until
from support.trio_test import trio_test

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
METHODS = (b"GET", b"HEAD")


@pytest.mark.parametrize("cut", range(1, len(OK), 4))
@trio_test(timeout_s=8)
async def test_an_answer_may_be_cut_anywhere(cut: int) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.dribble(OK, cut)

    async with proxy("express", script) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(GET)
            assert (await client.answer()).body == b"hello"
        assert not lb.lanes.handed_over
        assert len(lb.backends[0].peers) == 1


@trio_test(timeout_s=8)
async def test_a_head_that_repeats_suits_whoever_asks() -> None:
    """Remembered for one template of request, it is not sent in another one."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(OK if request.start.startswith(b"GET") else OK.removesuffix(b"hello"))

    async with proxy("express", script) as lb:
        kept, old = b"Connection: keep-alive", b"Connection: close"
        for _ in range(3):
            for asked, connection in (
                *((GET, None), (get(b"/", method=b"HEAD"), None), (get(b"/", kept, minor=0), b"keep-alive")),
                *((get(b"/", old), b"close"), (get(b"/", minor=0), b"close"), (GET, None)),
            ):
                client = await lb.client()
                await client.send(asked)
                method = asked.split(b" ")[0]
                answer = await client.answer(method)
                assert answer.body == (b"hello" if method == b"GET" else b"")
                assert answer.get(b"connection") == connection
                client.close()
        assert not lb.lanes.handed_over


@trio_test(timeout_s=8)
async def test_heads_that_differ_are_told_apart() -> None:
    answers = [
        b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nX-Number: %d\r\n\r\n%b" % (200 + number, size, number, b"x" * size)
        for number in (1, 2, 1, 1, 3, 3, 3, 1)
        for size in (1, 5, 20_000)
    ]
    async with proxy("express", answering(*answers)) as lb:
        client = await lb.client()
        for expected in answers:
            await client.send(GET)
            answer = await client.answer()
            head, _, body = expected.partition(b"\r\n\r\n")
            assert answer.start == head.split(b"\r\n")[0]
            assert (answer.get(b"x-number"), answer.body) == (head[-1:], body)


@trio_test(timeout_s=8)
async def test_complete_chunks_are_framed_anew() -> None:
    raw = b"1;a=b\r\nx\r\n2\r\nyz\r\n0\r\nX-Sum: 1\r\nSet-Cookie: evil\r\n\r\n"
    async with proxy("express", answering(CHUNKED + raw)) as lb:
        client = await lb.client()
        for field, behind in (
            (b"A: b", b"3\r\nxyz\r\n0\r\n\r\n"),
            (b"TE: trailers", b"3\r\nxyz\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ):
            await client.send(get(b"/", field))
            assert (await client.answer()).raw.endswith(b"\r\n\r\n" + behind)
        assert [record.response_bytes for record in lb.records] == [3, 3]
        assert not lb.lanes.handed_over


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (OK, True),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False),
        (OK + b"more", False),
        (b"HTTP/1.0" + OK.removeprefix(b"HTTP/1.1"), False),
        (b"HTTP/1.1 204 None\r\n\r\n", True),
        (b"HTTP/1.1 204 None\r\n\r\nmore", False),
        (CHUNKED + b"0\r\n\r\n", True),
        (CHUNKED + b"0\r\n\r\nmore", False),
    ],
)
@trio_test(timeout_s=8)
async def test_a_connection_serves_again_if_nothing_was_odd(answer: bytes, kept: bool) -> None:
    async with proxy("express", answering(answer)) as lb:
        client = await lb.client()
        for number in range(1, 4):
            await client.send(GET)
            assert (await client.answer()).status in (200, 204)
            assert len(lb.backends[0].peers) == (1 if kept else number)
        assert not lb.lanes.handed_over


@trio_test(timeout_s=8)
async def test_a_head_over_64_kib_is_handed_over_though_it_is_whole() -> None:
    async with proxy("express", answering(OK.replace(b"OK\r\n", b"OK\r\nA: " + b"x" * 65_536 + b"\r\n"))) as lb:
        assert (await lb.ask(GET)).status == 502
        assert lb.lanes.handed_over == {"bad_response": 1}


@trio_test(timeout_s=8)
async def test_the_answer_that_ends_a_connection_is_followed_by_its_end() -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        await client.send(get(b"/", b"Connection: close") + post(b"too much"))
        assert (await client.answer()).body == b"hello"
        assert await client.rest() == b""
        assert not client.is_reset
        assert len(lb.records) == 1


@trio_test(timeout_s=8)
async def test_an_early_answer_is_for_the_task_lane_to_give() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK)
        await peer.wait_ended()

    async with proxy("express", script) as lb:
        client = await lb.client()
        await client.send(post(bytes(200_000))[:-1])
        answer = await client.answer()
        assert (answer.status, answer.get(b"connection")) == (200, b"close")
        assert lb.lanes.handed_over == {"early_answer": 1}


@trio_test(timeout_s=8)
async def test_a_reset_connection_is_no_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async with proxy("express", script) as lb:
        assert (await lb.ask(GET)).status == 502
        await wait_until(lambda: lb.lanes.handed_over == {"backend_ended": 1})
        await trio.lowlevel.checkpoint()
