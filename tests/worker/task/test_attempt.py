"""One exchange with one backend: its two sides beside each other, on memory streams and virtual time."""

import pytest
import trio
import trio.testing
from support.memory import GET, Bench, MemoryStream
from support.trio_test import trio_test

from lbproxy.errors import ProxyError
from lbproxy.link.grid import Counter
from lbproxy.settings import ListenerTimeouts, PoolTimeouts
from lbproxy.wire.body import request_body
from lbproxy.wire.head import Refused
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.reply import ClientGone
from lbproxy.worker.task.attempt import BUFFER_BYTES, Attempt
from lbproxy.worker.task.exchange import Exchange
from lbproxy.worker.task.response_heads import NoAnswer

virtual = trio_test(clock="autojump", timeout_s=10_000)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
HEAD_OF = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


class Trial:
    """An attempt, begun with the whole request unsent."""

    def __init__(self, bench: Bench, request: bytes = GET, *, reused: bool = False) -> None:
        self.exchange: Exchange = bench.exchange(request)
        self.exchange.body = request_body(self.exchange.head, 0)
        self.exchange.take_payload()
        self.backend: MemoryStream
        self.backend, begun = bench.begun()
        begun.connection.reused = reused
        self.lease: Lease = begun.lease
        self.attempt = Attempt(self.exchange, begun)

    async def fails(self, kind: type[Exception]) -> Exception:
        with pytest.raises(kind) as caught:
            await self.attempt.run()
        return caught.value


@virtual
async def test_a_connection_is_kept_after_a_whole_answer() -> None:
    bench = Bench()
    trial = Trial(bench)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trial.attempt.run)
        await trial.backend.wait_heard(b"\r\n\r\n")
        trial.backend.says(OK)
    assert not trial.backend.is_closed
    assert bench.context.backends.take(bench.view, 10) is not None
    bench.close()


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"more",
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        OK.replace(b"1.1", b"1.0"),
        b"HTTP/1.1 204 None\r\n\r\n!",
    ],
    ids=["more", "close", "old", "body_of_204"],
)
@virtual
async def test_a_connection_is_not_kept_where_anything_is_odd(answer: bytes) -> None:
    bench = Bench()
    trial = Trial(bench)
    trial.backend.says(answer)
    await trial.attempt.run()
    assert trial.backend.is_closed
    bench.close()


@virtual
async def test_the_lease_is_released_before_a_slow_client_has_read() -> None:
    bench = Bench()
    trial = Trial(bench)
    bench.client.takes(10)
    trial.backend.says(HEAD_OF % 60_000 + bytes(30_000), bytes(30_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trial.attempt.run)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.leases == 0
        assert len(bench.client.heard) == 10
        bench.client.takes(None)
    assert bench.client.heard.endswith(bytes(60_000))
    bench.close()


@virtual
async def test_what_waits_for_a_slow_client_is_bounded() -> None:
    bench = Bench()
    trial = Trial(bench)
    bench.client.takes(0)
    trial.backend.says(HEAD_OF % 1_000_000, *(bytes(50_000) for _ in range(20)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trial.attempt.run)
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked()
            assert BUFFER_BYTES < bench.client.pending <= 2 * BUFFER_BYTES + 200
            bench.client.takes(bench.client.pending)
        bench.client.takes(None)
    assert trial.exchange.response_bytes == 1_000_000
    bench.close()


@virtual
async def test_a_client_that_takes_nothing_is_gone() -> None:
    bench = Bench(timeouts=ListenerTimeouts(body_s=60))
    trial = Trial(bench)
    bench.client.takes(100)
    trial.backend.says(HEAD_OF % 1_000_000, *(bytes(50_000) for _ in range(20)))
    await trial.fails(ClientGone)
    assert trio.current_time() > 0
    assert trial.backend.is_closed
    bench.close()


@virtual
async def test_the_time_for_an_answer_begins_when_the_request_is_sent() -> None:
    bench = Bench(pool_timeouts=PoolTimeouts(response_s=60), timeouts=ListenerTimeouts(body_s=100))
    trial = Trial(bench, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
    began = trio.current_time()

    async def upload() -> None:
        for _ in range(3):
            await trio.sleep(90)
            bench.client.says(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(upload)
        problem = await trial.fails(ProxyError)
    assert isinstance(problem, ProxyError)
    assert (problem.status, problem.token) == (504, "http_response_timeout")
    assert trio.current_time() - began == 270 + 60
    bench.close()


@virtual
async def test_a_head_that_dribbles_buys_no_time() -> None:
    bench = Bench(pool_timeouts=PoolTimeouts(response_s=60))
    trial = Trial(bench)
    began = trio.current_time()

    async def dribble(scope: trio.CancelScope) -> None:
        with scope:
            for byte in b"HTTP/1.1 200 OK\r\nA: " + b"x" * 1000:
                await trio.sleep(7)
                trial.backend.says(bytes([byte]))

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(dribble, scope)
        await trial.fails(ProxyError)
        scope.cancel()
    assert trio.current_time() - began == 60
    bench.close()


@virtual
async def test_interim_answers_buy_no_time() -> None:
    bench = Bench(pool_timeouts=PoolTimeouts(response_s=60))
    trial = Trial(bench)
    began = trio.current_time()

    async def hint(scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await trio.sleep(7)
                trial.backend.says(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(hint, scope)
        await trial.fails(ProxyError)
        scope.cancel()
    assert trio.current_time() - began == 60
    assert bench.client.heard.count(b"103 Early Hints") == 8
    bench.close()


@virtual
async def test_a_body_may_pause_but_not_stop() -> None:
    bench = Bench(pool_timeouts=PoolTimeouts(idle_s=60))
    trial = Trial(bench)
    began = trio.current_time()

    async def dribble() -> None:
        trial.backend.says(HEAD_OF % 100)
        for _ in range(5):
            await trio.sleep(59)
            trial.backend.says(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        problem = await trial.fails(ProxyError)
    assert isinstance(problem, ProxyError)
    assert problem.token == "connection_read_timeout"
    assert trio.current_time() - began == 5 * 59 + 60
    assert trial.exchange.reply.begun
    bench.close()


@pytest.mark.parametrize("how", [MemoryStream.ends, MemoryStream.breaks])
@virtual
async def test_a_connection_that_ends_at_once_gave_no_answer(how: object) -> None:
    bench = Bench()
    for reused in (True, False):
        trial = Trial(bench, reused=reused)
        how(trial.backend)  # type: ignore[operator]
        problem = await trial.fails(NoAnswer)
        assert isinstance(problem, NoAnswer)
        assert problem.reused == reused
        assert problem.backend == bench.view
        assert bench.leases == 0
    bench.close()


@virtual
async def test_an_early_answer_counts_though_the_backend_takes_no_more() -> None:
    bench = Bench()
    trial = Trial(bench, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    trial.backend.takes(100)
    trial.backend.says(b"HTTP/1.1 413 Too Much\r\nContent-Length: 0\r\n\r\n")
    bench.client.says(bytes(100_000), bytes(100_000))
    await trial.attempt.run()
    assert bench.client.heard.startswith(b"HTTP/1.1 413 ")
    assert not trial.exchange.keep
    assert trial.exchange.linger
    assert trial.backend.is_closed
    bench.close()


@virtual
async def test_a_bad_chunk_takes_the_request_back() -> None:
    bench = Bench()
    trial = Trial(bench, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    bench.client.says(b"3\r\ndefg\r\n")
    problem = await trial.fails(Refused)
    assert isinstance(problem, Refused)
    assert problem.status == 400
    assert trial.backend.is_closed
    assert trial.backend.heard.endswith(b"\r\n\r\n3\r\nabc\r\n")
    bench.close()


@virtual
async def test_chunks_are_framed_anew_and_trailers_follow() -> None:
    bench = Bench()
    trial = Trial(bench, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n2\r\nbc\r\n")
    bench.client.says(b"1\r\nd\r\n0\r\nX-Sum: 4\r\nHost: evil\r\n\r\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trial.attempt.run)
        await trial.backend.wait_heard(b"X-Sum")
        trial.backend.says(OK)
    assert trial.backend.heard.endswith(b"\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 4\r\n\r\n")
    bench.close()


@virtual
async def test_who_goes_away_stops_the_work() -> None:
    bench = Bench()
    trial = Trial(bench)

    async def leave() -> None:
        await trial.backend.wait_heard(b"\r\n\r\n")
        bench.client.ends()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await trial.fails(ClientGone)
    assert trial.backend.is_closed
    assert bench.leases == 0
    bench.close()


@virtual
async def test_what_the_client_says_ahead_is_kept() -> None:
    bench = Bench()
    trial = Trial(bench)

    async def speak() -> None:
        await trial.backend.wait_heard(b"\r\n\r\n")
        bench.client.says(b"GET /next")
        await trio.testing.wait_all_tasks_blocked()
        trial.backend.says(OK)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        await trial.attempt.run()
    assert trial.exchange.client.buffer == b"GET /next"
    bench.close()


@pytest.mark.parametrize(("method", "status"), [(b"GET", 503), (b"POST", 504)])
@virtual
async def test_a_cut_before_the_answer_is_told(method: bytes, status: int) -> None:
    bench = Bench()
    trial = Trial(bench, b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method)

    async def cut() -> None:
        await trial.backend.wait_heard(b"\r\n\r\n")
        trial.lease.cut()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut)
        problem = await trial.fails(ProxyError)
    assert isinstance(problem, ProxyError)
    assert problem.status == status
    assert trial.backend.is_closed
    bench.close()


@virtual
async def test_a_grace_that_ended_on_the_way_here_is_noticed() -> None:
    bench = Bench()
    trial = Trial(bench)
    trial.lease.overdue = True
    await trial.fails(ProxyError)
    assert not trial.backend.heard
    assert trial.backend.is_closed
    bench.close()


@virtual
async def test_a_lease_turns_into_a_transfer_when_a_body_goes_on() -> None:
    bench = Bench()
    trial = Trial(bench)
    trial.backend.says(HEAD_OF % 10, b"12345")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trial.attempt.run)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.count(Counter.TRANSFER) == 1
        trial.backend.says(b"67890")
    assert bench.count(Counter.TRANSFER) == bench.count(Counter.REQUEST) == 0
    bench.close()


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\ndata: 2"


@virtual
async def test_an_event_stream_ends_behind_a_whole_event() -> None:
    bench = Bench()
    trial = Trial(bench)
    trial.backend.says(EVENTS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trial.attempt.run)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.count(Counter.STREAM) == 1
        assert trial.lease.say_goodbye is not None
        trial.lease.say_goodbye(trio.current_time() + 30)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.leases == 1
        trial.backend.says(b"2\n\ndata: 3")
    assert bench.client.heard.endswith(b"0\r\n\r\n")
    assert b"data: 3" not in bench.client.heard
    assert trial.backend.is_closed
    bench.close()
