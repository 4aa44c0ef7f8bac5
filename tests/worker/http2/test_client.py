"""An HTTP/2 connection over the whole stack of a worker: streams, bodies, limits, resets, the end."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest
import trio
from hyperframe.frame import HeadersFrame
from support.http2 import Http2, connect2
from support.peer import Ended, Peer
from support.proxy import EMPTY, OK, Proxy, Script, Setup, answering, never_answering, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import ListenerLimits, ListenerTimeouts
from lbproxy.wire.http2.errors import CANCEL, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM
from lbproxy.worker.http2.client import Http2Client
from lbproxy.worker.http2.descriptor import FULL_BYTES

T = TypeVar("T")


async def there(do: Callable[[], T]) -> T:
    """In a thread: the client's socket blocks."""
    return await trio.to_thread.run_sync(do)


@asynccontextmanager
async def talking(
    *scripts: Script, setup: Setup | None = None, holds: bool = False
) -> AsyncIterator[tuple[Proxy, Http2]]:
    async with proxy("h2", *scripts, setup=setup) as lb:
        client = await there(lambda: connect2(lb.address.port, holds=holds))
        lb._clients.append(client)  # type: ignore[arg-type]
        yield lb, client


@trio_test(timeout_s=8)
async def test_many_requests_share_a_connection_and_are_logged_as_http2() -> None:
    async with talking(answering(OK)) as (lb, client):
        numbers = await there(lambda: [client.request("GET", f"/{n}") for n in range(50)])
        answers = await there(lambda: [client.answer(number) for number in numbers])
        assert {(answer.status, bytes(answer.body)) for answer in answers} == {(200, b"hello")}
        assert {len(answer.headers["x-request-id"]) for answer in answers} == {32}
        records = await lb.wait_records(50)
        assert {record.head.target for record in records} == {b"/%d" % n for n in range(50)}
        assert all(record.head.is_http2 for record in records)
        assert lb.grid.sum(1, Counter.CONNECTIONS) == 1


@trio_test(timeout_s=8)
async def test_a_field_that_was_found_good_is_remembered_for_all_connections() -> None:
    async with talking(answering(OK)) as (lb, client):
        assert (await there(lambda: client.answer(client.request("GET", "/", [("x-kept", "1")])))).status == 200
        assert lb.lanes.checked_fields.get((b"x-kept", b"1")) is not None


@trio_test(timeout_s=8)
async def test_trailers_pass_both_ways_and_a_body_without_a_length_is_chunked() -> None:
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
    async with talking(answering(said)) as (lb, client):

        def talk() -> None:
            number = client.request("POST", "/", [("te", "trailers")], end=False)
            client.send(number, b"part", trailers=[("x-up", "2")])
            answer = client.answer(number)
            assert (answer.status, bytes(answer.body), answer.trailers) == (200, b"abc", [("x-sum", "1")])

        await there(talk)
        got = lb.backends[0].received
        assert b"Transfer-Encoding: chunked\r\n" in got
        assert got.endswith(b"4\r\npart\r\n0\r\nx-up: 2\r\n\r\n"), got


@trio_test(timeout_s=8)
async def test_interim_heads_and_heads_without_a_body() -> None:
    said = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    async with talking(answering(said, EMPTY)) as (_, client):
        hinted = await there(lambda: client.get("/"))
        assert (hinted.status, hinted.interim[0][0]) == (204, 103)
        number = await there(lambda: client.request("HEAD", "/"))
        headed = await there(lambda: client.answer(number))
        assert (headed.status, headed.body, headed.headers["content-length"]) == (200, b"", "0")
        assert client.names(number) == ["HEADERS"]


@trio_test(timeout_s=8)
async def test_a_slow_reader_holds_up_its_own_stream_only() -> None:
    async def script(peer: Peer) -> None:
        while True:
            asked = await peer.request()
            size = 1_000_000 if b"/big" in asked.start else 5
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    async with talking(script, holds=True) as (lb, client):
        client.h2.increment_flow_control_window(1 << 20)
        big = await there(lambda: client.request("GET", "/big"))
        await there(lambda: client.wait(lambda: len(client.answers[big].body) == 65535))
        for _ in range(3):
            assert (await there(lambda: client.get("/small"))).status == 200
        (record,) = lb.lanes.records
        assert record.wire.output.queued_bytes <= 3 * 65536  # type: ignore[union-attr]

        def read_on() -> None:
            while not client.answers[big].over:
                client.credit(big)
                client.step()

        await there(read_on)
        assert len(client.answers[big].body) == 1_000_000


@trio_test(timeout_s=8)
async def test_a_backend_that_does_not_read_stops_its_own_upload_only() -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        if b"/up" in head.start:
            await trio.sleep_forever()
        while True:
            await peer.send(OK)
            await peer.request()

    async with talking(script, script) as (lb, client):

        def upload() -> None:
            number = client.request("POST", "/up", end=False)
            while client.window(number):
                client.h2.send_data(number, b"x" * min(client.window(number), 16384))
                client.flush()
                client.sock.settimeout(0.2)
                try:
                    while not client.window(number):
                        client.step()
                except TimeoutError:
                    break
            client.sock.settimeout(20)
            assert client.get("/").status == 200
            client.reset(number)

        await there(upload)
        await wait_until(lambda: lb.leases == 0)
        assert {record.status for record in await lb.wait_records(2)} == {200, 499}


@trio_test(timeout_s=8)
async def test_a_reset_frees_the_backend_at_once() -> None:
    async with talking(never_answering) as (lb, client):
        number = await there(lambda: client.request("GET", "/"))
        await wait_until(lambda: lb.leases == 1)
        await there(lambda: client.reset(number, CANCEL))
        await wait_until(lambda: lb.leases == 0)
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (499, "client_gone")


@trio_test(timeout_s=8)
async def test_the_end_of_the_connection_frees_every_backend() -> None:
    async with talking(never_answering) as (lb, client):
        await there(lambda: [client.request("GET", "/") for _ in range(10)])
        await wait_until(lambda: lb.leases == 10)
        client.close()
        await wait_until(lambda: lb.leases == 0)
        assert {record.status for record in await lb.wait_records(10)} == {499}


@trio_test(timeout_s=8)
async def test_what_is_malformed_is_a_stream_error_and_reaches_no_backend() -> None:
    async with talking(answering(OK)) as (lb, client):
        usual = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
        for bad in (
            [*usual, ("Upper", "1")],
            usual[:3],
            [*usual, ("connection", "close")],
            [*usual, ("a", "b\r\nc: d")],
        ):
            number = await there(lambda bad=bad: client.open(bad))
            assert (await there(lambda number=number: client.answer(number))).reset == PROTOCOL_ERROR
        assert not lb.backends[0].peers
        assert (await there(lambda: client.get("/"))).status == 200


@trio_test(timeout_s=8)
async def test_our_own_answers_are_those_of_http1() -> None:
    setup = Setup(limits=ListenerLimits(header_bytes=2048, headers=10, body_bytes=1000), pool=None)
    async with talking(answering(OK), setup=setup) as (lb, client):

        def talk() -> None:
            assert client.get("/").status == 404
            assert client.get("/", [("x", "y" * 3000)]).status == 431
            assert client.get("/", [(f"x{n}", "y") for n in range(11)]).status == 431
            connect = client.open([(":method", "CONNECT"), (":authority", "a:1")])
            assert client.answer(connect).status == 501
            assert client.get("/").headers["proxy-status"] == "edge; error=destination_not_found"

        await there(talk)
        assert [record.status for record in await lb.wait_records(5)] == [404, 431, 431, 501, 404]


@trio_test(timeout_s=8)
async def test_a_body_over_the_limit_is_answered_413_and_the_rest_is_not_wanted() -> None:
    setup = Setup(limits=ListenerLimits(body_bytes=1000))
    async with talking(answering(OK), setup=setup) as (_, client):

        def talk() -> None:
            for fields in ([("content-length", "2000")], []):
                number = client.request("POST", "/", fields, end=False)
                client.send(number, b"x" * 1500)
                answer = client.answer(number)
                assert answer.status == 413
                client.wait(lambda answer=answer: answer.reset is not None)
                assert answer.reset == NO_ERROR
            assert client.get("/").status == 200

        await there(talk)


@trio_test(timeout_s=8)
async def test_a_request_that_may_not_be_replayed_and_loses_its_backend_is_a_502() -> None:
    async def script(peer: Peer) -> None:
        if b"/bad" in (await peer.request()).start:
            raise Ended
        await peer.send(OK)

    async with talking(script) as (_, client):
        assert (await there(lambda: client.post("/", b"a"))).status == 200
        assert (await there(lambda: client.post("/bad", b"b"))).status == 502
        assert (await there(lambda: client.post("/", b"c"))).status == 200


@trio_test(timeout_s=8)
async def test_a_body_that_stalls_is_a_408_and_an_idle_connection_is_told_to_go() -> None:
    setup = Setup(timeouts=ListenerTimeouts(header_s=0.3, idle_s=0.3, body_s=0.2))
    async with talking(answering(OK), setup=setup) as (_, client):

        def talk() -> None:
            number = client.request("POST", "/", end=False)
            client.send(number, b"x")
            assert client.answer(number).status == 408
            client.wait_end()
            assert [(goaway.error_code, goaway.last_stream_id) for goaway in client.goaways] == [(NO_ERROR, 1)]

        await there(talk)


@trio_test(timeout_s=8)
async def test_more_streams_than_are_allowed_are_refused() -> None:
    async with talking(never_answering) as (lb, client):
        numbers = await there(lambda: [client.request("GET", "/") for _ in range(100)])
        await wait_until(lambda: lb.leases == 100)
        await there(lambda: client.wait(lambda: client.names()[:1] == ["SETTINGS"]))
        assert client.h2.remote_settings.max_concurrent_streams == 100
        late = HeadersFrame(201, client.h2.encoder.encode([(":method", "GET")]), flags=["END_HEADERS", "END_STREAM"])
        await there(lambda: client.send_frame(late))
        await there(lambda: client.wait(lambda: "RST_STREAM" in client.names(201)))
        assert client.frames[-1].error_code == REFUSED_STREAM
        await there(lambda: [client.reset(number) for number in numbers])
        await wait_until(lambda: lb.leases == 0)


@trio_test(timeout_s=8)
async def test_a_worker_that_stops_says_goaway_twice_and_finishes_what_it_accepted() -> None:
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.send(OK)

    async with talking(script) as (lb, client):
        first = await there(lambda: client.request("GET", "/"))
        await wait_until(lambda: lb.leases == 1)
        lb.lanes.stop(30.0)
        last = len(client.frames)
        between = await there(lambda: client.request("GET", "/"))  # sent before the round trip is over

        def ends() -> list[tuple[int, int]]:
            return [(goaway.last_stream_id, goaway.error_code) for goaway in client.goaways]

        await there(lambda: client.wait(lambda: len(ends()) == 2))
        assert ends() == [(2**31 - 1, NO_ERROR), (between, NO_ERROR)]
        names = client.names()[last:]
        assert names.index("GOAWAY") < names.index("PING") < len(names) - 1 - names[::-1].index("GOAWAY")
        late = await there(lambda: client.request("GET", "/"))
        assert (await there(lambda: client.answer(late))).reset == REFUSED_STREAM
        go_on.set()
        assert [(await there(lambda n=n: client.answer(n))).status for n in (first, between)] == [200, 200]
        await there(client.wait_end)
        assert [record.status for record in await lb.wait_records(2)] == [200, 200]


@trio_test(timeout_s=8)
async def test_a_listener_that_no_longer_takes_http2_tells_its_clients() -> None:
    async with talking(answering(OK)) as (lb, client):
        assert (await there(lambda: client.get("/"))).status == 200
        (record,) = lb.lanes.records
        settings = replace(record.view.settings, protocols=("http/1.1",))
        lb.lanes.refresh([replace(record.view, settings=settings)])
        await there(client.wait_end)
        assert [goaway.last_stream_id for goaway in client.goaways] == [2**31 - 1, 1]


@pytest.mark.parametrize("off", [True, False], ids=["tasks", "express"])
@trio_test(timeout_s=15)
async def test_what_waits_for_a_client_is_bounded_for_all_streams_together(off: bool) -> None:
    """And every stream goes on when the client reads."""

    async def script(peer: Peer) -> None:
        while True:
            size = 50_000 if b"/other" in (await peer.request()).start else 90_000
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    async with talking(script, holds=True) as (lb, client):
        lb.lanes.off = off
        (record,) = lb.lanes.records
        assert isinstance(record, Http2Client)
        numbers = await there(lambda: [client.request("GET", "/") for _ in range(100)])
        most = 0
        for _ in range(50):
            await trio.sleep(0.005)
            most = max(most, record.wire.output.queued_bytes)
        assert FULL_BYTES < most <= 1024 * 1024
        client.reset(numbers.pop())
        client.h2.increment_flow_control_window(1 << 23)
        answered = await there(lambda: client.get("/other"))  # those that are not read hold up no other one
        assert answered.status == 200

        def read_on() -> None:
            while not all(client.answers[number].over for number in numbers):
                for number in numbers:
                    client.credit(number)
                client.step()

        await there(read_on)
        assert {len(client.answers[number].body) for number in numbers} == {90_000}


@trio_test(timeout_s=8)
async def test_a_head_that_comes_before_its_body_brings_no_empty_frame() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        head, body = OK[:-5], OK[-5:]
        await peer.send(head)
        await trio.sleep(0.05)
        await peer.send(body)

    async with talking(script) as (_, client):
        number = await there(lambda: client.request("GET", "/"))
        assert (await there(lambda: client.answer(number))).body == b"hello"
        assert client.names(number) == ["HEADERS", "DATA"]
