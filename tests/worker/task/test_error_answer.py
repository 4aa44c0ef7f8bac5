"""How a failed exchange is answered: memory streams, virtual time, and HTTP/1 spelling for what a stream would say."""

import trio
import trio.testing
from support.memory import Bench
from support.trio_test import trio_test

from lbproxy.settings import PoolLimits
from lbproxy.worker.task.exchange import Exchange

virtual = trio_test(clock="autojump", timeout_s=10_000)
CALL = (
    b"POST /a.B/C HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nContent-Type: application/grpc+proto\r\n"
    b"Content-Length: 5\r\n\r\n\0\0\0\0\0"
)


def call(bench: Bench, *, is_grpc: bool = True) -> Exchange:
    exchange = bench.exchange(CALL)
    exchange.is_grpc = is_grpc  # as on a stream of HTTP/2
    return exchange


@virtual
async def test_a_call_gets_a_status_and_the_log_the_failure_that_it_stands_for() -> None:
    bench = Bench(pool_limits=PoolLimits(queue_timeout_s=3.0))
    bench.publish()
    await call(bench).run()
    head, _, body = bytes(bench.client.heard).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 14\r\ngrpc-message: ")
    assert b"\r\nProxy-Status: edge; error=" in head
    assert body == b""
    (record,) = bench.access.records
    assert (record.status, record.error) == (503, "destination_unavailable")
    bench.close()


@virtual
async def test_a_client_of_http_1_gets_a_page_whatever_it_says_it_sends() -> None:
    bench = Bench(pool_limits=PoolLimits(queue_timeout_s=3.0))
    bench.publish()
    await call(bench, is_grpc=False).run()
    assert bench.client.heard.startswith(b"HTTP/1.1 503 ")
    bench.close()


@virtual
async def test_a_call_whose_answer_breaks_off_ends_with_a_status_in_its_trailers() -> None:
    bench = Bench()
    backend = bench.idle()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call(bench).run)
        await trio.testing.wait_all_tasks_blocked()
        backend.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\0\0\0\0\0\r\n")
        await trio.testing.wait_all_tasks_blocked()
        backend.ends()
    assert b"5\r\n\0\0\0\0\0\r\n0\r\ngrpc-status: 14\r\ngrpc-message: " in bench.client.heard
    assert bench.client.heard.count(b"grpc-status") == 1
    bench.close()
