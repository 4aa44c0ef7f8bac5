"""How much is read at once follows the last message: whatever comes next arrives whole, in both directions."""

import pytest
from support.peer import Peer
from support.proxy import get, post, proxy
from support.trio_test import trio_test

from lbproxy.worker.express.record import ExpressRecord
from lbproxy.worker.io.read_size import (
    LARGE_RECV_BYTES,
    RECV_BYTES,
    SMALL_BYTES,
    SMALL_RECV_BYTES,
    room_for,
    room_for_answer,
)

SIZES = (
    SMALL_RECV_BYTES - 1,
    SMALL_RECV_BYTES,
    SMALL_RECV_BYTES + 1,
    RECV_BYTES,
    RECV_BYTES + SMALL_RECV_BYTES,
    60_000,
    LARGE_RECV_BYTES - 1,
    LARGE_RECV_BYTES,
    LARGE_RECV_BYTES + 1,
)


def test_only_after_a_small_message_little_is_read() -> None:
    assert room_for(SMALL_BYTES) == SMALL_RECV_BYTES
    assert room_for(SMALL_BYTES + 1) == RECV_BYTES


def test_after_a_large_answer_the_next_one_is_read_at_once() -> None:
    assert room_for_answer(SMALL_BYTES) == SMALL_RECV_BYTES
    assert room_for_answer(RECV_BYTES) == RECV_BYTES
    assert room_for_answer(RECV_BYTES + 1) == LARGE_RECV_BYTES


def request_of(size: int) -> bytes:
    bare = len(post(bytes(100))) - 100
    return post(b"x" * (size - bare - (size - bare >= 1000) - (size - bare >= 10_000)))


def answer_of(size: int) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    body = size - len(head % size)
    return head % body + b"y" * body


@pytest.mark.parametrize("size", SIZES[:6])
@trio_test(timeout_s=8)
async def test_a_large_request_may_follow_small_ones(size: int) -> None:
    async def script(peer: Peer) -> None:
        while True:
            got = await peer.request()
            await peer.send(answer_of(300).replace(b"yyyyy", b"%05d" % len(got.body), 1))

    async with proxy("express", script) as lb:
        client = await lb.client()
        large = request_of(size)
        assert abs(len(large) - size) <= 1
        for asked in (get(b"/"), get(b"/"), large, get(b"/"), large, large, get(b"/"), get(b"/")):
            await client.send(asked)
            answer = await client.answer()
            assert (answer.status, answer.body[:5]) == (200, b"%05d" % len(asked.partition(b"\r\n\r\n")[2]))
        (record,) = lb.lanes._records
        assert isinstance(record, ExpressRecord)
        assert record.recv_bytes == SMALL_RECV_BYTES
        assert not lb.lanes.handed_over


@pytest.mark.parametrize("size", SIZES)
@trio_test(timeout_s=8)
async def test_a_large_answer_may_follow_small_ones(size: int) -> None:
    small, large = answer_of(120), answer_of(size)
    assert abs(len(large) - size) <= 1
    order = (small, small, small, large, small, large, large, large, small, small)

    async def script(peer: Peer) -> None:
        for answer in order:
            await peer.request()
            await peer.send(answer)
        await peer.wait_ended()

    async with proxy("express", script) as lb:
        client = await lb.client()
        for answer in order:
            await client.send(get(b"/"))
            assert (await client.answer()).body == answer.partition(b"\r\n\r\n")[2]
        assert not lb.lanes.handed_over
