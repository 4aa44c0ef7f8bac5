"""One exchange of the task lane, phase by phase, on memory streams and virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing
from support.memory import GET, Bench, MemoryStream
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import ListenerLimits, ListenerTimeouts, PoolLimits, PoolTimeouts
from lbproxy.wire.body import request_body
from lbproxy.worker.handover import Begun, Handover, Sent
from lbproxy.worker.task.exchange import Exchange

virtual = trio_test(clock="autojump", timeout_s=10_000)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def post(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % size + body


class Run:
    def __init__(self) -> None:
        self.kept: bool | None = None


@asynccontextmanager
async def running(exchange: Exchange) -> AsyncIterator[Run]:
    run = Run()

    async def serve() -> None:
        run.kept = await exchange.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        yield run


async def finished(exchange: Exchange) -> bool:
    return await exchange.run()


@virtual
async def test_phase_by_phase() -> None:
    bench = Bench()
    backend = bench.idle()
    exchange = bench.exchange()
    async with running(exchange) as run:
        assert backend.heard.startswith(b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 192.0.2.7\r\n")
        assert bench.leases == 1
        backend.says(OK)
    assert run.kept
    assert bench.client.heard.endswith(b"hello")
    assert not backend.is_closed
    (record,) = bench.access.records
    assert (record.status, record.backend, record.response_bytes, record.error) == (200, "web.1", 5, None)
    assert (bench.count(Counter.REQUESTS), bench.count(Counter.FAILED)) == (1, 0)
    bench.close()


@virtual
async def test_a_short_body_is_complete_before_a_backend_is_claimed() -> None:
    bench = Bench()
    backend = bench.idle()
    async with running(bench.exchange(post(b"abc", 6))):
        assert bench.leases == 0
        bench.client.says(b"def")
        await trio.testing.wait_all_tasks_blocked()
        assert backend.heard.endswith(b"\r\n\r\nabcdef")
        backend.says(OK)
    bench.close()


@virtual
async def test_of_a_long_body_64_kib_come_first() -> None:
    bench = Bench()
    backend = bench.idle()
    async with running(bench.exchange(post(b"", 100_000))):
        bench.client.says(bytes(65_535))
        await trio.testing.wait_all_tasks_blocked()
        assert bench.leases == 0
        bench.client.says(b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert bench.leases == 1
        assert backend.heard.endswith(b"\0x")
        bench.client.says(bytes(34_464))
        await trio.testing.wait_all_tasks_blocked()
        backend.says(OK)
    assert bench.access.records[0].request_bytes == 100_000
    bench.close()


@virtual
async def test_a_body_that_stalls_before_a_claim_is_a_408() -> None:
    bench = Bench(timeouts=ListenerTimeouts(body_s=0.5))
    began = trio.current_time()
    assert not await finished(bench.exchange(post(b"abc", 6)))
    assert trio.current_time() - began == 0.5
    assert bench.client.heard.startswith(b"HTTP/1.1 408 ")
    assert bench.access.records[0].backend is None
    bench.close()


@virtual
async def test_a_body_that_has_stalled_in_the_other_lane_is_not_waited_for_again() -> None:
    bench = Bench()
    exchange = bench.exchange(post(b"abc", 6), Handover("slow_body", b"", has_stalled=True))
    began = trio.current_time()
    assert not await exchange.run()
    assert trio.current_time() == began
    assert bench.client.heard.startswith(b"HTTP/1.1 408 ")
    bench.close()


@virtual
async def test_every_byte_of_a_body_buys_time() -> None:
    bench = Bench(timeouts=ListenerTimeouts(body_s=60))
    backend = bench.idle()
    async with running(bench.exchange(post(b"", 5))):
        for _ in range(5):
            await trio.sleep(59)
            bench.client.says(b"x")
        await trio.testing.wait_all_tasks_blocked()
        backend.says(OK)
    assert bench.client.heard.startswith(b"HTTP/1.1 200 ")
    bench.close()


@virtual
async def test_a_length_over_the_limit_is_refused_at_once() -> None:
    bench = Bench(limits=ListenerLimits(body_bytes=5))
    exchange = bench.exchange(post(b"", 6))
    assert not await exchange.run()
    assert exchange.linger  # it may still be sending
    assert bench.client.heard.startswith(b"HTTP/1.1 413 ")
    bench.close()


@virtual
async def test_who_leaves_before_a_claim_is_a_499() -> None:
    bench = Bench()
    async with running(bench.exchange(post(b"abc", 6))) as run:
        bench.client.ends()
    assert run.kept is False
    assert not bench.client.heard
    (record,) = bench.access.records
    assert (record.status, record.backend, record.error, record.request_bytes) == (499, None, "client_gone", 3)
    bench.close()


@virtual
async def test_nobody_ready_is_waited_for_as_long_as_the_queue_allows() -> None:
    bench = Bench(pool_limits=PoolLimits(queue_timeout_s=10))
    bench.publish()
    began = trio.current_time()
    assert await finished(bench.exchange())  # the client may ask again
    assert trio.current_time() - began == 10
    assert bench.client.heard.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in bench.client.heard
    assert bench.grid.sum(0, Counter.FAILED) == 1
    bench.close()


@virtual
async def test_the_first_ready_backend_serves_who_waited() -> None:
    bench = Bench()
    bench.publish()
    async with running(bench.exchange()):
        await trio.sleep(5)
        backend = bench.idle()
        bench.publish(bench.view)
        await backend.wait_heard(b"\r\n\r\n")
        backend.says(OK)
    assert bench.client.heard.endswith(b"hello")
    bench.close()


@virtual
async def test_a_stale_connection_gives_way_once_more_and_not_for_ever() -> None:
    """The second attempt asks for a fresh one; here nobody listens, so it waits in the queue."""
    bench = Bench(pool_limits=PoolLimits(queue_timeout_s=3))
    backend = bench.idle()
    backend.ends()
    assert await finished(bench.exchange())
    assert backend.is_closed
    assert bench.client.heard.startswith(b"HTTP/1.1 503 ")
    bench.close()


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"LOCK"])
@virtual
async def test_what_may_have_had_an_effect_is_not_tried_again(method: bytes) -> None:
    bench = Bench()
    backend = bench.idle()
    backend.breaks()
    assert not await finished(bench.exchange(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method))
    assert bench.client.heard == b""  # its connection ends without an answer, as the backend's did
    assert bench.access.records[0].status == 502
    assert bench.access.records[0].error == "connection_terminated"
    bench.close()


@virtual
async def test_a_long_upload_is_not_tried_again_even_if_its_method_may_be() -> None:
    bench = Bench()
    backend = bench.idle()
    raw = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n"
    async with running(bench.exchange(raw)) as run:
        bench.client.says(bytes(65_536), bytes(4464))
        await trio.testing.wait_all_tasks_blocked()
        backend.ends()
    assert not run.kept
    assert bench.client.heard == b""
    bench.close()


# The second entry: the express lane has sent the request


def handed_over(
    bench: Bench, raw: bytes, payload: bytes = b"", request_bytes: int | None = None
) -> tuple[MemoryStream, Exchange]:
    exchange = bench.exchange(raw)
    backend, begun = bench.begun()
    begun.connection.reused = True
    exchange.continue_with(sent(begun, exchange, payload, request_bytes))
    return backend, exchange


def sent(begun: Begun, exchange: Exchange, payload: bytes = b"", request_bytes: int | None = None) -> Sent:
    """What the express lane knows of an exchange that it hands over."""
    count = len(payload) if request_bytes is None else request_bytes
    return Sent(begun, exchange.head, b"a" * 32, payload, count, trio.current_time())


@virtual
async def test_what_was_sent_is_not_sent_again() -> None:
    bench = Bench()
    backend, exchange = handed_over(bench, GET)
    async with running(exchange) as run:
        assert not backend.heard
        backend.says(OK)
    assert run.kept
    (record,) = bench.access.records
    assert (record.request_id, record.status) == (b"a" * 32, 200)
    assert b"\r\nX-Request-ID: " + b"a" * 32 in bench.client.heard
    bench.close()


@virtual
async def test_what_is_missing_of_the_body_follows() -> None:
    bench = Bench()
    backend, exchange = handed_over(bench, post(b"", 10), b"", 6)
    async with running(exchange):
        bench.client.says(b"6789GET /next HTTP/1.1\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert backend.heard == b"6789"
        backend.says(OK)
    assert bench.access.records[0].request_bytes == 10
    assert exchange.client.buffer == b"GET /next HTTP/1.1\r\n"
    bench.close()


@virtual
async def test_a_stale_connection_is_found_out_after_the_hand_over_too() -> None:
    bench = Bench()
    backend, exchange = handed_over(bench, post(b""))
    backend.ends()
    assert not await exchange.run()
    assert bench.client.heard == b""
    again = bench.idle()
    backend, exchange = handed_over(bench, GET)
    backend.ends()
    again.ends()
    bench.publish()
    async with running(exchange):
        bench.publish(bench.view)
    assert bench.client.heard.count(b"HTTP/1.1 503 ") == 1  # tried again, and nobody listens
    assert not again.heard  # on a fresh connection, not on another idle one
    bench.close()


@virtual
async def test_the_time_of_a_slow_answer_is_not_begun_anew() -> None:
    bench = Bench(pool_timeouts=PoolTimeouts(response_s=60))
    exchange = bench.exchange()
    backend, begun = bench.begun()
    exchange.continue_with(sent(replace(begun, respond_by=trio.current_time() + 7), exchange))
    began = trio.current_time()
    assert await exchange.run()
    assert trio.current_time() - began == 7
    assert b"504 Gateway Timeout: no response head within 60s" in bench.client.heard
    assert backend.is_closed
    bench.close()


@virtual
async def test_a_worker_that_stops_says_so() -> None:
    bench = Bench()
    backend = bench.idle()
    async with running(bench.exchange()) as run:
        bench.context.stopping.set()
        backend.says(OK)
    assert run.kept is False
    assert b"\r\nConnection: close\r\n" in bench.client.heard
    bench.close()


@virtual
async def test_a_cancelled_exchange_leaves_nothing() -> None:
    bench = Bench()
    backend = bench.idle()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.exchange().run)
        await backend.wait_heard(b"\r\n\r\n")
        nursery.cancel_scope.cancel()
    assert backend.is_closed
    assert bench.access.records[0].error == "cut"
    assert bench.count(Counter.FAILED) == 1
    bench.close()


@virtual
async def test_a_request_may_be_replayed_while_all_of_it_is_in_hand() -> None:
    bench = Bench()
    for raw, expected in ((GET, True), (post(b"abc"), False), (post(b"abc").replace(b"POST", b"PUT"), True)):
        exchange = bench.exchange(raw)
        exchange.body = request_body(exchange.head, 0)
        exchange.take_payload()
        assert exchange.may_replay is expected
    exchange = bench.exchange(post(b"ab", 3).replace(b"POST", b"PUT"))
    exchange.body = request_body(exchange.head, 0)
    exchange.take_payload()
    assert not exchange.may_replay
    bench.close()
