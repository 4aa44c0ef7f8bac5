"""Streams to backends that speak HTTP/2: both lanes answer, count and log alike, whatever the backend does."""

from collections import Counter as Counts
from typing import Any

import pytest
import trio
from support.http2 import connect2
from support.http2_backend import speak
from support.peer import Peer
from support.proxy import Proxy, proxy, wait_until
from support.setup import Setup
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import DrainSettings

STREAM_LANES = ("h2", "h2task")
CALL = [("content-type", "application/grpc"), ("te", "trailers")]
GRPC = (b"content-type", b"application/grpc")
MESSAGE = b"\0\0\0\0\x03abc"
# Each path, and why its answer leaves the express lane; None: it does not.
PATHS: dict[str, str | None] = {
    "/whole": None,
    "/bare": None,
    "/head-only": None,
    "/empty": None,
    "/no-content": None,
    "/wrong-length": "bad_response",
    "/early": "interim",
    "/long": "stream",
    "/reset": "backend_ended",
}


async def any_answer(peer: Peer) -> None:
    """All frames of an answer leave together."""
    h2 = await speak(peer)
    heads = {
        b"/bare": [(b"content-length", b"5"), (b"date", b"now")],
        b"/wrong-length": [(b"content-length", b"6")],
        b"/head-only": [GRPC, (b"grpc-status", b"5")],
    }
    while True:
        asked = await h2.request()
        path, out = asked.fields[b":path"], h2.h2
        if path == b"/reset":
            out.reset_stream(asked.id)
            await h2.flush()
            continue
        if path == b"/early":
            out.send_headers(asked.id, [(b":status", b"103"), (b"link", b"</a>")])
        status = b"204" if path == b"/no-content" else b"200"
        fields = heads.get(path, [GRPC, (b"x-told", asked.fields.get(b"x-tell", b"nothing"))])
        out.send_headers(asked.id, [(b":status", status), *fields], path in (b"/no-content", b"/head-only"))
        match path:
            case b"/whole" | b"/early":
                out.send_data(asked.id, MESSAGE + bytes(asked.body))
                out.send_headers(asked.id, [(b"grpc-status", b"0"), *asked.trailers], end_stream=True)
            case b"/bare" | b"/wrong-length":
                out.send_data(asked.id, b"hello", end_stream=True)
            case b"/empty":
                out.send_data(asked.id, b"", end_stream=True)
            case b"/long":
                await h2.data(asked.id, bytes(100_000), end=True)
        await h2.flush()


def ask_all(client: Any) -> list[object]:
    seen: list[object] = []
    for path in PATHS:
        for method in ("GET", "POST", "POST", "HEAD"):
            if method == "HEAD" and path != "/head-only":
                continue
            trailers = [("x-sum", "1")] if path == "/whole" else []
            with client.corked():
                number = client.request(method, path, [*CALL, ("x-tell", method)], end=method != "POST")
                if method == "POST":
                    client.send(number, b"asked", end=True, trailers=trailers)
            answer = client.answer(number)
            fields = [field for field in answer.fields if field[0] not in ("x-request-id", "date")]
            body = bytes(answer.body).replace(answer.headers.get("x-request-id", "none").encode(), b"")
            seen.append((path, method, answer.status, fields, body, answer.trailers, answer.interim and True))
    return seen


@trio_test(timeout_s=20)
async def test_both_lanes_answer_count_and_log_alike() -> None:
    seen = []
    for lane in STREAM_LANES:
        async with proxy(lane, any_answer, setup=Setup(is_http2=True)) as lb:
            client = connected(lb)
            answers = await trio.to_thread.run_sync(ask_all, client)
            records = await lb.wait_records(len(answers))
            told = [(one.head, one.status, one.request_bytes, one.response_bytes, one.error) for one in records]
            counts: Counts[tuple[str, int, str]] = Counts()  # the lanes have series of their own
            for one in lb.router.tally.take().exchanges:
                counts[one.method, one.status, "exchanges"] += sum(one.buckets)
                counts[one.method, one.status, "bytes"] += one.response_bytes
                counts[one.method, one.status, "received"] += one.request_bytes
            seen.append((answers, told, counts, lb.count(Counter.FAILED), lb.count(Counter.REQUESTS)))
            if lane == "h2":
                assert set(lb.lanes.handed_over) == {why for why in PATHS.values() if why} | {"http2"}
                assert lb.lanes.handed_over["http2"] == 1  # which made the connection
    for one, other in zip(*seen, strict=True):
        assert one == other


def connected(lb: Proxy) -> Any:
    client = connect2(lb.address.port)
    lb._clients.append(client)  # type: ignore[arg-type]
    return client


async def silent(peer: Peer) -> None:
    """Answers the first request only."""
    h2 = await speak(peer)
    await h2.answer((await h2.request()).id, b"hello")
    while True:
        asked = await h2.request()
        asked_again.append(asked)
        await h2.until(lambda asked=asked: asked.reset is not None)


asked_again: list[Any] = []


def call(client: Any, timeout: str | None = None) -> int:
    fields = [*CALL, ("grpc-timeout", timeout)] if timeout else CALL
    with client.corked():
        number: int = client.request("POST", "/a.B/C", fields, end=False)
        client.send(number, MESSAGE, end=True)
    return number


@pytest.mark.parametrize("lane", STREAM_LANES)
@trio_test(timeout_s=8)
async def test_a_client_that_leaves_frees_its_backend_and_its_stream(lane: str) -> None:
    asked_again.clear()
    async with proxy(lane, silent, setup=Setup(is_http2=True)) as lb:
        client = connected(lb)
        assert (await trio.to_thread.run_sync(client.get, "/")).status == 200
        number = await trio.to_thread.run_sync(call, client)
        await wait_until(lambda: asked_again)
        await trio.to_thread.run_sync(client.reset, number)
        await wait_until(lambda: lb.leases == 0)
        await wait_until(lambda: asked_again[0].reset == 8)
        assert [(one.status, one.error) for one in await lb.wait_records(2)] == [(200, None), (499, "client_gone")]


@pytest.mark.parametrize("lane", STREAM_LANES)
@trio_test(timeout_s=8)
async def test_a_deadline_and_the_cut_of_a_drain_end_a_call_with_a_status_of_grpc(lane: str) -> None:
    setup = Setup(is_http2=True, drain=DrainSettings(request_s=0.2))
    async with proxy(lane, silent, setup=setup) as lb:
        client = connected(lb)
        assert (await trio.to_thread.run_sync(client.get, "/")).status == 200
        late = await trio.to_thread.run_sync(lambda: client.answer(call(client, "100m")))
        assert (late.status, late.headers["grpc-status"]) == (200, "4")
        number = await trio.to_thread.run_sync(call, client)
        await wait_until(lambda: lb.leases == 1)
        lb.publish()
        cut = await trio.to_thread.run_sync(client.answer, number)
        assert (cut.status, cut.headers["grpc-status"]) == (200, "14")
        assert lb.count(Counter.CUT) == 1
