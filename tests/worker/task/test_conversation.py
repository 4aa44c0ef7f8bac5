"""Exchange after exchange on one connection of the task lane, until one of them is the last."""

import pytest
import trio
import trio.testing
from support.memory import GET, Bench
from support.trio_test import trio_test

from lbproxy.settings import ListenerTimeouts
from lbproxy.telemetry.events import ExchangeFailed, Notice
from lbproxy.wire.head import Refused
from lbproxy.worker.task.client import Client
from lbproxy.worker.task.conversation import converse, linger, refuse

virtual = trio_test(clock="autojump", timeout_s=10_000)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Talk:
    def __init__(self, bench: Bench) -> None:
        self.client: Client = bench.talk()
        self.bench = bench
        self.fit: bool | None = None

    async def run(self, stay: bool = True) -> None:
        self.fit = await converse(self.bench.context, self.client, stay=stay)


@virtual
async def test_exchange_follows_exchange() -> None:
    bench = Bench()
    backend = bench.idle()
    talk = Talk(bench)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        for number in range(1, 4):
            bench.client.says(GET)
            await trio.testing.wait_all_tasks_blocked()
            backend.says(OK)
            await trio.testing.wait_all_tasks_blocked()
            assert bench.client.heard.count(b"hello") == number
        bench.client.ends()
    assert talk.fit is False
    assert len(bench.access.records) == 3
    bench.close()


@virtual
async def test_pipelined_requests_are_answered_in_order() -> None:
    bench = Bench()
    backend = bench.idle()
    bench.client.says(GET + GET + GET)
    talk = Talk(bench)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        for number in range(1, 4):
            await trio.testing.wait_all_tasks_blocked()
            assert backend.heard.count(b"GET / ") == number
            backend.says(OK.replace(b"hello", b"hell%d" % number))
        await trio.testing.wait_all_tasks_blocked()
        bench.client.ends()
    heard = bytes(bench.client.heard)
    assert heard.index(b"hell1") < heard.index(b"hell2") < heard.index(b"hell3")
    bench.close()


@virtual
async def test_one_exchange_is_enough_where_the_other_lane_goes_on() -> None:
    bench = Bench()
    backend = bench.idle()
    bench.client.says(GET + b"GET /ne")
    backend.says(OK)
    talk = Talk(bench)
    await talk.run(stay=False)
    assert talk.fit is True
    assert talk.client.buffer == b"GET /ne"
    bench.close()


@virtual
async def test_a_silent_client_is_let_go_without_a_word() -> None:
    bench = Bench(timeouts=ListenerTimeouts(idle_s=75))
    talk = Talk(bench)
    began = trio.current_time()
    await talk.run()
    assert (talk.fit, bytes(bench.client.heard)) == (False, b"")
    assert trio.current_time() - began == 75
    bench.close()


@virtual
async def test_who_has_begun_a_head_is_told_that_it_was_too_slow() -> None:
    bench = Bench(timeouts=ListenerTimeouts(header_s=10, idle_s=75))
    talk = Talk(bench)

    async def dribble(scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(70)
            for byte in b"GET / HTTP/1.1\r\nA: xxxxxxxxxxxxxxxxxxx":
                bench.client.says(bytes([byte]))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(dribble, scope)
        began = trio.current_time()
        await talk.run()
        assert trio.current_time() - began == pytest.approx(70 + 10 + 1, abs=1.1)  # and the lingering end
        scope.cancel()
    assert bench.client.heard.startswith(b"HTTP/1.1 408 ")
    bench.close()


@virtual
async def test_what_is_behind_a_refused_request_is_not_looked_at() -> None:
    bench = Bench()
    backend = bench.idle()
    bench.client.says(b"GET / HTTP/1.1\r\n\r\n" + GET)
    talk = Talk(bench)
    await talk.run()
    assert talk.fit is False
    assert bench.client.heard.startswith(b"HTTP/1.1 400 ")
    assert bench.client.heard.count(b"HTTP/1.1 ") == 1
    assert not backend.heard
    assert bench.client.is_half_closed
    assert not bench.client.is_closed  # the stream stays the caller's
    bench.close()


@virtual
async def test_what_is_behind_the_last_request_is_not_looked_at() -> None:
    bench = Bench()
    backend = bench.idle()
    backend.says(OK)
    bench.client.says(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
    talk = Talk(bench)
    await talk.run()
    assert bench.client.heard.count(b"HTTP/1.1 200") == 1
    assert bench.client.is_half_closed  # softly: a reset could swallow the answer
    bench.close()


@virtual
async def test_an_upload_that_was_answered_early_is_let_go_of_slowly() -> None:
    bench = Bench()
    backend = bench.idle()
    backend.says(b"HTTP/1.1 413 Too Much\r\nContent-Length: 0\r\n\r\n")
    bench.client.says(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", bytes(65_536))
    talk = Talk(bench)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        for _ in range(3):
            await trio.sleep(4)
            assert talk.fit is None
            bench.client.says(bytes(60_000))
        began = trio.current_time()
    assert trio.current_time() - began == 5
    bench.close()


@virtual
async def test_a_refusal_waits_a_moment_for_the_client_to_hear_it() -> None:
    bench = Bench()
    client = bench.talk()
    began = trio.current_time()
    assert not await refuse(bench.context, client, Refused(400, "http_request_error", "because"), b"")
    assert trio.current_time() - began == 1
    assert b"400 Bad Request: because" in bench.client.heard
    assert not await linger(client)
    bench.close()


@virtual
async def test_who_is_gone_is_not_told() -> None:
    bench = Bench()
    bench.client.breaks()
    assert not await refuse(bench.context, bench.talk(), Refused(400, "http_request_error", "because"), b"")
    talk = Talk(bench)
    await talk.run()
    assert talk.fit is False
    bench.close()


@virtual
async def test_a_worker_that_stops_takes_no_next_request() -> None:
    bench = Bench()
    backend = bench.idle()
    bench.client.says(GET + GET)
    talk = Talk(bench)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        await trio.testing.wait_all_tasks_blocked()
        bench.context.stopping.set()
        backend.says(OK)
    assert backend.heard.count(b"GET / ") == 1
    assert b"\r\nConnection: close\r\n" in bench.client.heard
    bench.close()


@virtual
async def test_a_mistake_of_ours_costs_one_connection() -> None:
    bench = Bench()
    backend = bench.idle()
    bench.client.says(GET)
    backend.receive = None  # type: ignore[method-assign, assignment]
    talk = Talk(bench)
    await talk.run()
    assert talk.fit is False
    failed, event = bench.events
    assert isinstance(failed, ExchangeFailed)
    assert (failed.status, failed.error) == (0, "proxy_internal_error")
    assert isinstance(event, Notice)
    assert "a client connection was dropped" in event.text
    assert bench.access.records[0].error == "proxy_internal_error"
    bench.close()


@virtual
async def test_others_have_their_turn_between_requests_that_need_no_backend() -> None:
    bench = Bench()
    bench.router.route = lambda *asked: None  # type: ignore[method-assign]
    bench.client.says(GET * 50)
    bench.client.ends()
    turns = 0

    async def count(scope: trio.CancelScope) -> None:
        nonlocal turns
        with scope:
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

    talk = Talk(bench)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(count, scope)
        await talk.run()
        scope.cancel()
    assert bench.client.heard.count(b"HTTP/1.1 404 ") == 50
    assert turns >= 50
    bench.close()
