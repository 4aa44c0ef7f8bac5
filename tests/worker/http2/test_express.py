"""Requests of streams in the express lane: what stays there, what goes to a task, and that records are used again."""

from typing import Any

import pytest
import trio
from support.http2 import connect2
from support.peer import Peer
from support.proxy import OK, Proxy, Setup, answering, never_answering, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.model import LeaseKind
from lbproxy.settings import DrainSettings, ListenerLimits, ListenerTimeouts, PoolTimeouts
from lbproxy.wire.http2.errors import CANCEL, INTERNAL_ERROR

STREAM_LANES = ("h2", "h2task")


async def echo(peer: Peer) -> None:
    """The whole request, as its answer."""
    while True:
        asked = await peer.request()
        fields = [b": ".join(field) for field in asked.fields if field[0] != b"x-request-id"]
        body = b"\n".join((asked.start, *fields, asked.body))
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def connected(lb: Proxy) -> Any:
    client = connect2(lb.address.port)
    lb._clients.append(client)  # type: ignore[arg-type]
    return client


def ask_many(client: Any) -> list[tuple[int, bytes]]:
    """Requests of every kind that the lane takes, ten at a time on one connection."""
    answers = []
    for turn in range(6):
        streams = []
        for number in range(10):
            kind = number % 5
            if kind == 0:
                streams.append(client.request("GET", "/same"))
            elif kind == 1:
                streams.append(client.request("GET", f"/new/{turn}", [("cookie", f"n={number}"), ("cookie", "b=2")]))
            elif kind == 2:
                streams.append(client.request("POST", "/length", [("content-length", "4")], end=False))
                client.send(streams[-1], b"abcd", end=True)
            elif kind == 3:
                streams.append(client.request("POST", "/parts", end=False))
                client.send(streams[-1], b"one,")
                client.send(streams[-1], b"two", end=True)
            else:
                streams.append(client.request("PUT", "/trailers", [("te", "trailers")], end=False))
                client.send(streams[-1], b"up", trailers=[("x-sum", "1")])
        answers += [(answer.status, bytes(answer.body)) for answer in map(client.answer, streams)]
    return answers


@trio_test(timeout_s=20)
async def test_a_backend_gets_the_same_requests_from_both_lanes() -> None:
    seen = []
    for lane in STREAM_LANES:
        async with proxy(lane, echo) as lb:
            client = connected(lb)
            answers = await trio.to_thread.run_sync(ask_many, client)
            records = [(one.head, one.request_bytes, one.response_bytes) for one in await lb.wait_records(60)]
            seen.append((answers, sorted(records, key=repr)))
            assert not lb.lanes.handed_over
            if lane == "h2":
                assert len(lb.lanes.stream_heads.free) <= 10
                assert lb.router.tally.served == 60
    assert seen[0] == seen[1]
    assert {status for status, _ in seen[0][0]} == {200}
    assert any(b"transfer-encoding: chunked" in body and body.endswith(b"one,two") for _, body in seen[0][0])
    assert any(b"cookie: n=1; b=2" in body for _, body in seen[0][0])


@trio_test(timeout_s=8)
async def test_what_is_hard_goes_to_a_task_with_all_that_has_come() -> None:
    async with proxy("h2", echo, setup=Setup(limits=ListenerLimits(body_bytes=100_000))) as lb:
        client = connected(lb)

        def talk() -> None:
            number = client.request("POST", "/slow", end=False)
            client.send(number, b"begun, ")
            assert client.get("/other").status == 200
            trio.from_thread.run(wait_until, lambda: lb.lanes.handed_over.get("slow_body"))
            client.send(number, b"and ended", end=True)
            assert client.answer(number).body.endswith(b"\nbegun, and ended")
            for length, reason in ((50_000, "slow_body"), (200_000, "slow_body")):
                number = client.request("POST", "/long", end=False)
                client.send(number, bytes(length), end=True)
                assert client.answer(number).status == (200 if length < 100_000 else 413), reason
            number = client.request("POST", "/told", [("content-length", "200000")], end=False)
            assert client.answer(number).status == 413

        await trio.to_thread.run_sync(talk)
        assert lb.lanes.handed_over["slow_body"] == 3
        assert lb.lanes.handed_over["refused"] == 1


@pytest.mark.parametrize("lane", STREAM_LANES)
@trio_test(timeout_s=8)
async def test_a_backend_that_says_nothing_costs_its_stream_a_504(lane: str) -> None:
    async with proxy(lane, never_answering, setup=Setup(pool_timeouts=PoolTimeouts(response_s=0.2))) as lb:
        client = connected(lb)
        assert (await trio.to_thread.run_sync(client.get, "/")).status == 504
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (504, "http_response_timeout")


@pytest.mark.parametrize("lane", STREAM_LANES)
@trio_test(timeout_s=8)
async def test_a_lost_backend_is_replaced_by_another_one_for_a_get(lane: str) -> None:
    async def leaving(peer: Peer) -> None:
        await peer.request()

    async with proxy(lane, leaving, answering(OK)) as lb:
        client = connected(lb)
        answers = await trio.to_thread.run_sync(lambda: [client.get("/").status for _ in range(4)])
        assert answers == [200] * 4


@trio_test(timeout_s=8)
async def test_a_stream_holds_a_lease_of_its_own_and_shows_its_state() -> None:
    async with proxy("h2", never_answering) as lb:
        client = connected(lb)
        await trio.to_thread.run_sync(lambda: [client.request("GET", "/") for _ in range(3)])
        await wait_until(lambda: lb.leases == 3)
        (record,) = lb.lanes.records
        streams = record.streams  # type: ignore[union-attr]
        assert {stream.lease.kind for stream in streams.values()} == {LeaseKind.REQUEST}
        assert all(stream.queued_at < float("inf") for stream in streams.values())
        assert repr(streams[1]).startswith("<express stream 1, express connection -1, waiting, web.1")


@trio_test(timeout_s=8)
async def test_a_mistake_of_ours_costs_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy("h2", answering(OK)) as lb:
        client = connected(lb)
        assert (await trio.to_thread.run_sync(client.get, "/")).status == 200
        lb.expected_notices = 1
        with monkeypatch.context() as patch:
            patch.setattr("lbproxy.worker.http2.express.ExpressStream.put_whole", None)
            number = await trio.to_thread.run_sync(client.request, "GET", "/")
            assert (await trio.to_thread.run_sync(client.answer, number)).reset == 2
        assert (await trio.to_thread.run_sync(client.get, "/")).status == 200


async def begun(peer: Peer) -> None:
    """The half of a long answer, and then nothing; a short one for /short."""
    while True:
        asked = await peer.request()
        if b"/short" in asked.start:
            await peer.send(OK)
        else:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + bytes(200_000))
            await trio.sleep_forever()


async def a_long_one(lb: Proxy) -> tuple[Any, int]:
    client = connect2(lb.address.port, holds=True)
    lb._clients.append(client)  # type: ignore[arg-type]
    number = await trio.to_thread.run_sync(client.request, "GET", "/long")
    await trio.to_thread.run_sync(client.wait, lambda: len(client.answers[number].body) == 65535)
    return client, number


@pytest.mark.parametrize("lane", STREAM_LANES)
@trio_test(timeout_s=8)
async def test_an_answer_that_is_not_taken_is_given_up_and_frees_its_backend(lane: str) -> None:
    async with proxy(lane, begun, setup=Setup(timeouts=ListenerTimeouts(body_s=0.3))) as lb:
        client, number = await a_long_one(lb)
        answer = await trio.to_thread.run_sync(client.answer, number)
        assert answer.reset == CANCEL
        await wait_until(lambda: lb.leases == 0)
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (200, "client_gone")
        assert (await trio.to_thread.run_sync(client.get, "/short")).status == 200


@pytest.mark.parametrize("lane", STREAM_LANES)
@trio_test(timeout_s=8)
async def test_a_drain_that_cuts_a_long_answer_resets_its_stream_only(lane: str) -> None:
    async with proxy(lane, begun, setup=Setup(drain=DrainSettings(request_s=0.2, transfer_s=0.2))) as lb:
        client, number = await a_long_one(lb)
        lb.publish(backends=[])
        answer = await trio.to_thread.run_sync(client.answer, number)
        assert answer.reset == INTERNAL_ERROR
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (200, "cut")
        assert lb.count(Counter.CUT) == 1
        assert not client.goaways
