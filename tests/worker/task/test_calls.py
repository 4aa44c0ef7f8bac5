"""gRPC calls in the task lane: kinds, deadlines and the goodbye. Memory streams, virtual time, HTTP/1 spelling."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
import trio.testing
from support.memory import Bench, MemoryStream
from support.trio_test import trio_test

from lbproxy.model import LeaseKind
from lbproxy.settings import DrainSettings, ListenerTimeouts, PoolTimeouts
from lbproxy.wire.body import chunk
from lbproxy.wire.grpc import message
from lbproxy.worker.leases.drain import STALLED_S
from lbproxy.worker.task.exchange import Exchange
from lbproxy.worker.task.farewell import STATUS_S

virtual = trio_test(clock="autojump", timeout_s=10_000)
ONE = chunk(message(b"one"))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"0\r\ngrpc-status: 0\r\n\r\n"
GOODBYE = b"0\r\ngrpc-status: 14\r\ngrpc-message: going away\r\ngrpc-retry-pushback-ms: "
HOUR_S = 3600.0


def request(*lines: bytes) -> bytes:
    first = (b"POST /a.B/C HTTP/1.1", b"Host: a.example", b"TE: trailers", b"Content-Type: application/grpc")
    return b"\r\n".join((*first, b"Transfer-Encoding: chunked", *lines, b"", b""))


@dataclass
class Call:
    bench: Bench
    backend: MemoryStream
    exchange: Exchange

    @property
    def heard(self) -> bytes:
        return bytes(self.bench.client.heard)

    @property
    def kind(self) -> LeaseKind:
        lease = self.exchange.client.lease
        assert lease is not None
        return lease.kind

    async def drain(self, stream_s: float) -> None:
        """The backend drains, until the call has ended."""
        lease = self.exchange.client.lease
        assert lease is not None
        leases = lease.leases
        leases.begin(DrainSettings(stream_s=stream_s, goodbye_s=0.0), trio.current_time())
        while (due := leases.next_due(trio.current_time())) is not None and leases.held:
            await trio.sleep_until(due)
            leases.tell(trio.current_time())
            for over in leases.due(trio.current_time()):
                over.cut()
            await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def called(*lines: bytes, body: bytes = b"") -> AsyncIterator[Call]:
    """A call on its way: within the block the backend has it; behind the block it has ended."""
    bench = Bench(pool_timeouts=PoolTimeouts(response_s=60.0, idle_s=60.0), timeouts=ListenerTimeouts(body_s=60.0))
    backend = bench.idle()
    exchange = bench.exchange(request(*lines) + body)
    exchange.is_grpc = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.run)
        await trio.testing.wait_all_tasks_blocked()
        assert backend.heard.startswith(b"POST /a.B/C "), "a call is not held back for its body"
        yield Call(bench, backend, exchange)
    bench.close()


@virtual
async def test_a_unary_call_is_a_request_from_its_head_to_its_status() -> None:
    async with called(body=ONE + b"0\r\n\r\n") as call:
        await trio.sleep(HOUR_S)
        assert call.kind is LeaseKind.REQUEST, "without a deadline it may take an hour"
        call.backend.says(HEAD + ONE + OK)
    assert call.heard.endswith(ONE + OK)


@virtual
async def test_a_call_whose_two_sides_stay_open_is_a_stream_and_may_be_silent() -> None:
    async with called() as call:
        call.backend.says(HEAD)
        await trio.testing.wait_all_tasks_blocked()
        assert call.kind is LeaseKind.STREAM
        await trio.sleep(HOUR_S)
        call.bench.client.says(ONE)
        call.backend.says(ONE)
        await trio.testing.wait_all_tasks_blocked()
        assert call.backend.heard.endswith(ONE)
        call.backend.says(OK)
    assert call.heard.endswith(ONE + OK)


@virtual
async def test_a_call_with_one_answer_after_another_is_a_stream() -> None:
    async with called(body=b"0\r\n\r\n") as call:
        call.backend.says(HEAD + ONE[:7])
        await trio.testing.wait_all_tasks_blocked()
        assert call.kind is LeaseKind.TRANSFER
        call.backend.says(ONE[7:])
        await trio.sleep(STATUS_S / 2)
        assert call.kind is LeaseKind.TRANSFER, "its status may follow"
        call.backend.says(ONE)
        await trio.testing.wait_all_tasks_blocked()
        assert call.kind is LeaseKind.STREAM
        call.backend.says(OK)


@virtual
async def test_a_silent_stream_is_told_goodbye_with_a_status_and_a_time() -> None:
    async with called() as call:
        call.backend.says(HEAD + ONE)
        await trio.sleep(10)
        began = trio.current_time()
        await call.drain(30.0)
        assert trio.current_time() == began
    head, found, pushback = call.heard.partition(GOODBYE)
    assert found
    assert head.endswith(ONE)
    assert 0 <= int(pushback.strip()) <= 30_000
    assert call.backend.is_closed
    (record,) = call.bench.access.records
    assert (record.status, record.error) == (200, None)


@virtual
async def test_an_answer_that_ends_by_itself_is_not_told_anything() -> None:
    async with called(body=b"0\r\n\r\n") as call:

        async def go_on() -> None:
            for _ in range(100):
                call.backend.says(ONE)
                await trio.sleep(0.05)
            call.backend.says(OK)

        call.backend.says(HEAD + ONE)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            nursery.start_soon(call.drain, 30.0)
    assert call.heard.count(ONE) == 101
    assert call.heard.endswith(OK)


@virtual
async def test_a_stream_that_never_stands_between_two_messages_is_cut_with_a_status() -> None:
    async with called() as call:
        call.backend.says(HEAD + ONE[:-3])
        await trio.testing.wait_all_tasks_blocked()
        await call.drain(4.0)
    assert b"grpc-status: 14\r\ngrpc-message: going away: the grace of the drain is over" in call.heard
    assert call.heard.count(b"grpc-status") == 1


@virtual
async def test_a_stream_without_a_word_of_its_backend_is_told_goodbye_too() -> None:
    async with called() as call:
        await trio.sleep(STALLED_S + 1)
        assert call.kind is LeaseKind.STREAM
        await call.drain(30.0)
    assert b"\r\ngrpc-status: 14\r\ngrpc-message: going away\r\ngrpc-retry-pushback-ms: " in call.heard
    assert call.bench.events == [], "nothing has failed"


@virtual
async def test_a_deadline_ends_a_call_before_its_head_and_behind_it() -> None:
    for said in (b"", HEAD + ONE):
        async with called(b"grpc-timeout: 5S", body=b"0\r\n\r\n") as call:
            began = trio.current_time()
            if said:
                call.backend.says(said)
        assert 5.0 <= trio.current_time() - began <= 5.5
        assert b"\r\ngrpc-status: 4\r\ngrpc-message: the deadline of the call has passed\r\n" in call.heard
        assert call.heard.count(b"grpc-status") == 1
