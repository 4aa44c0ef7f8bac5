"""Long bodies of known length in the express lane: both directions, slow peers, pipes in the kernel."""

import errno
import os
import socket
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from support.peer import Ended, Peer
from support.proxy import GET, OK, Setup, answering, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import ListenerTimeouts, PoolTimeouts
from lbproxy.worker.express.body import BODY_BYTES, SPLICE_FROM_BYTES
from lbproxy.worker.express.phase import CLIENT_FULL
from lbproxy.worker.io.splice import PIPE_BYTES, Pipe

NOISE = os.urandom(1 << 20)
SIZES = [BODY_BYTES - 1, BODY_BYTES + 1, 200_000, SPLICE_FROM_BYTES + 20_000, 1 << 20]
through_both = pytest.mark.parametrize("piped", [True, False], ids=["through_a_pipe", "through_us"])


def answer(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + NOISE[:size]


async def takes_it_whole(peer: Peer) -> None:
    assert (await peer.request()).body == NOISE * 4
    await peer.send(OK)


@pytest.mark.parametrize("slow", [False, True], ids=["quick", "slow"])
@pytest.mark.parametrize("size", SIZES)
@trio_test(timeout_s=8)
async def test_a_download_stays_in_the_lane(size: int, slow: bool) -> None:
    async with proxy("express", answering(answer(size)), setup=Setup(send_bytes=4096 if slow else 0)) as lb:
        client = await lb.client(receive_bytes=2048 if slow else 0)
        for _ in range(3):
            await client.send(GET)
            if slow:
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert (await client.answer()).body == NOISE[:size]
        assert not lb.lanes.handed_over
        assert len(lb.backends[0].peers) == 1
        assert [record.response_bytes for record in await lb.wait_records(3)] == [size] * 3


@trio_test(timeout_s=8)
async def test_a_client_that_takes_a_little_at_a_time_is_a_transfer_that_moves() -> None:
    """Else a drain would cut it as one that has stalled (leases/drain.py)."""
    size = 200_000
    async with proxy("express", answering(answer(size)), setup=Setup(send_bytes=4096)) as lb:
        client = await lb.client(receive_bytes=2048)
        await client.send(GET)
        (record,) = lb.lanes._records
        await wait_until(lambda: record.phase is CLIENT_FULL)
        taken = 0
        while not (record.phase is CLIENT_FULL and record.moved_at > record.entered_at):
            assert taken < size, "it has taken all, and never counted as moving"
            taken += len(await client.exactly(2048))
            await trio.testing.wait_all_tasks_blocked(0.001)


@pytest.mark.parametrize("size", SIZES)
@trio_test(timeout_s=8)
async def test_an_upload_stays_in_the_lane(size: int) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            got.append((await peer.request()).body)
            await peer.send(OK)

    async with proxy("express", script) as lb:
        client = await lb.client()
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, post(NOISE[:size]) + GET)
                for _ in range(2):
                    assert (await client.answer()).status == 200
        assert got == [NOISE[:size], b""] * 3
        assert not lb.lanes.handed_over
        assert [record.request_bytes for record in lb.records] == [size, 0] * 3


@through_both
@trio_test(timeout_s=8)
async def test_an_upload_waits_for_its_backend_to_read(piped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await go_on.wait()
        assert await peer.exactly(8 << 20) == NOISE * 8
        await peer.send(OK)

    async with proxy("express", script) as lb:
        if not piped:
            monkeypatch.setattr(lb.lanes.pipes, "take", lambda: None)
        go_on = trio.Event()
        client = await lb.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, post(NOISE * 8))
            await trio.testing.wait_all_tasks_blocked(0.03)
            (record,) = lb.lanes._records
            waits = record.pipe if piped else record.unsent  # type: ignore[union-attr]
            assert waits is not None
            assert 0 < len(waits) <= (PIPE_BYTES if piped else BODY_BYTES)
            assert lb.count(Counter.TRANSFER) == 1
            go_on.set()
            assert (await client.answer()).status == 200
        assert not lb.lanes.handed_over


@pytest.mark.parametrize("size", [200_000, 1 << 20], ids=["through_us", "through_a_pipe"])
@trio_test(timeout_s=8)
async def test_bytes_behind_a_long_body_reach_nobody(size: int) -> None:
    async with proxy("express", answering(answer(size) + b"poison")) as lb:
        client = await lb.client()
        for number in range(1, 4):
            await client.send(GET)
            assert (await client.answer()).body == NOISE[:size]
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not client.buffer
            assert len(lb.backends[0].peers) == number


@pytest.mark.parametrize("size", [200_000, 1 << 20], ids=["through_us", "through_a_pipe"])
@pytest.mark.parametrize("slow", [False, True], ids=["quick", "slow"])
@trio_test(timeout_s=8)
async def test_a_long_body_that_breaks_off_is_cut_and_its_pipe_is_not_used_again(size: int, slow: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(size)[:-1000])

    async with proxy("express", script, setup=Setup(send_bytes=4096 if slow else 0)) as lb:
        for _ in range(3):
            client = await lb.client(receive_bytes=2048 if slow else 0)
            await client.send(GET)
            with pytest.raises(Ended):
                await client.answer()
            client.close()
        assert {record.error for record in lb.records} == {"http_response_incomplete"}
        assert all(pipe.held == 0 for pipe in lb.lanes.pipes._kept)
        lb.backends[0].script = answering(answer(1 << 20))
        assert (await lb.ask(GET)).body == NOISE


@pytest.mark.parametrize("size", [60_000, 200_000, 1 << 22], ids=["short", "through_us", "through_a_pipe"])
@trio_test(timeout_s=8)
async def test_a_reader_that_stops_is_let_go_of_and_its_pipe_is_closed(size: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    setup = Setup(send_bytes=4096, timeouts=ListenerTimeouts(body_s=0.2))
    async with proxy("express", answering(whole), setup=setup) as lb:
        client = await lb.client(receive_bytes=2048)
        await client.send(GET)
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (200, "client_gone")
        assert all(pipe.held == 0 for pipe in lb.lanes.pipes._kept)
        await wait_until(lambda: not lb.lanes.connections)


@trio_test(timeout_s=8)
async def test_where_no_pipe_can_be_had_the_bytes_pass_through_us(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy("express", answering(answer(1 << 20))) as lb:
        monkeypatch.setattr(lb.lanes.pipes, "take", lambda: None)
        assert (await lb.ask(GET)).body == NOISE


@through_both
@trio_test(timeout_s=8)
async def test_an_upload_that_is_answered_early_gets_that_answer(piped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the backend has not read what waits for it."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await full.wait()
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await peer.wait_ended()

    async with proxy("express", script) as lb:
        if not piped:
            monkeypatch.setattr(lb.lanes.pipes, "take", lambda: None)
        full = trio.Event()
        client = await lb.client()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with suppress(Ended):
                    await client.send(post(NOISE * 16))

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0.03)
            full.set()
            assert (await client.answer()).status == 413
            nursery.cancel_scope.cancel()
        assert lb.lanes.handed_over == {"early_answer": 1}
        assert lb.lanes.pipes._taken == 0


@trio_test(timeout_s=8)
async def test_what_a_pipe_holds_of_an_upload_goes_along_to_the_task_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the kernel does not splice to such a socket."""

    def refuse(self: Pipe, target: int) -> None:
        raise OSError(errno.EINVAL, "refused")

    monkeypatch.setattr(Pipe, "drain", refuse)

    async with proxy("express", takes_it_whole) as lb:
        client = await lb.client()
        await client.send(post(NOISE * 4))
        assert (await client.answer()).status == 200
        assert lb.lanes.handed_over == {"upload_broken": 1}
        (record,) = await lb.wait_records(1)
        assert record.request_bytes == 4 << 20


@trio_test(timeout_s=8)
async def test_an_upload_that_the_kernel_does_not_splice_passes_through_us(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Pipe, source: int, most: int) -> int:
        raise OSError(errno.EINVAL, "refused")

    monkeypatch.setattr(Pipe, "fill", refuse)

    async with proxy("express", takes_it_whole) as lb:
        client = await lb.client()
        await client.send(post(NOISE * 4))
        assert (await client.answer()).status == 200
        assert not lb.lanes.handed_over


@through_both
@trio_test(timeout_s=8)
async def test_a_client_that_leaves_during_its_upload_takes_it_back(
    piped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.wait_ended()

    async with proxy("express", script) as lb:
        if not piped:
            monkeypatch.setattr(lb.lanes.pipes, "take", lambda: None)
        client = await lb.client()
        await client.send(post(NOISE)[:600_000])
        await trio.testing.wait_all_tasks_blocked(0.03)
        client.close()
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (499, "client_gone")
        assert 500_000 < record.request_bytes < 600_000
        assert lb.lanes.pipes._taken == 0


@trio_test(timeout_s=8)
async def test_an_upload_that_stalls_takes_its_request_back() -> None:
    async def script(peer: Peer) -> None:
        await peer.wait_ended()
        gone.set()

    setup = Setup(timeouts=ListenerTimeouts(body_s=0.2), pool_timeouts=PoolTimeouts())
    async with proxy("express", script, setup=setup) as lb:
        gone = trio.Event()
        client = await lb.client()
        await client.send(post(NOISE)[:200_000])
        assert (await client.answer()).status == 408
        await gone.wait()
        (record,) = await lb.wait_records(1)
        assert (record.status, record.backend, record.error) == (408, "web.1", "http_request_error")
        assert 100_000 < record.request_bytes < 200_000


class TakesLittle:
    """A socket that does not take more at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytes) -> int:
        return self._sock.send(data[:1000])


@trio_test(timeout_s=8)
async def test_a_connection_that_comes_back_from_an_upload_in_the_task_lane_begins_anew() -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        await client.send(post(b"abc"))
        await client.answer()
        (idle,) = lb.context.backends._idle.values()
        whole = idle[0].sock
        idle[0].sock = TakesLittle(whole)  # type: ignore[assignment]
        await client.send(post(NOISE[:200_000]))
        assert (await client.answer()).status == 200
        assert lb.lanes.handed_over == {"backpressure": 1}
        idle[0].sock = whole
        for asked in (GET, GET, post(b"abc"), GET):
            await client.send(asked)
            assert (await client.answer()).status == 200
        assert lb.lanes.handed_over == {"backpressure": 1}
        assert [record.request_bytes for record in lb.records] == [3, 200_000, 0, 0, 3, 0]
