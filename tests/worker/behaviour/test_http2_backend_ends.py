"""Streams to a backend of HTTP/2 that end otherwise than well: refused, reset, lost, malformed, left by the client."""

import pytest
import trio
from h2.errors import ErrorCodes
from hyperframe.frame import ContinuationFrame, GoAwayFrame, HeadersFrame
from support.http2_backend import serving, speak
from support.peer import Peer
from support.proxy import GET, get, post, proxy, wait_until
from support.setup import Setup
from support.trio_test import trio_test

HTTP2 = Setup(is_http2=True)


@trio_test(timeout_s=8)
async def test_a_refused_stream_goes_elsewhere_even_one_that_may_not_be_replayed() -> None:
    async def refusing(peer: Peer) -> None:
        h2 = await speak(peer)
        while True:
            asked = await h2.begun()
            h2.h2.reset_stream(asked.id, ErrorCodes.REFUSED_STREAM)
            await h2.flush()

    async with proxy("express", refusing, serving(), setup=HTTP2) as lb:
        for _ in range(4):
            answer = await lb.ask(post(b"abc"))
            assert (answer.status, answer.body) == (200, b"hello")
        assert (await lb.wait_records(4))[0].served_by == lb.view(1).id
        assert not lb.context.errors._seen
        assert len(lb.backends[0].peers) == 1


@pytest.mark.parametrize("code", [ErrorCodes.NO_ERROR, ErrorCodes.ENHANCE_YOUR_CALM])
@trio_test(timeout_s=8)
async def test_a_backend_that_goes_away_finishes_what_it_has_begun_and_the_rest_is_sent_anew(code: ErrorCodes) -> None:
    seen: list[list[bytes]] = []

    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        served: list[bytes] = []
        seen.append(served)
        if len(seen) > 1:
            while True:
                asked = await h2.request()
                served.append(bytes(asked.body))
                await h2.answer(asked.id, b"second")
        first = await h2.request()
        await h2.head(first.id)
        await h2.data(first.id, b"fir")
        second = await h2.request()
        await h2.frame(GoAwayFrame(last_stream_id=first.id, error_code=code, additional_data=b"bye"))
        assert second.id > first.id
        await h2.data(first.id, b"st", end=True)
        await peer.wait_ended()

    async with proxy("express", script, setup=HTTP2) as lb:
        one, two = await lb.client(), await lb.client()
        await one.send(post(b"1"))
        await one.until(b"fir")
        await two.send(post(b"2"))
        assert (await two.answer()).body == b"second"
        assert (await one.until(b"0\r\n\r\n")).endswith(b"st\r\n0\r\n\r\n")
        assert seen == [[], [b"2"]]
        await wait_until(lambda: lb.context.shared.count(lb.view(0)) == 1)
        assert [record.status for record in await lb.wait_records(2)] == [200, 200]


@pytest.mark.parametrize("path", [b"/begun", b"/not"])
@trio_test(timeout_s=8)
async def test_another_reset_is_a_502_or_a_cut(path: bytes) -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        while True:
            asked = await h2.request()
            if asked.fields[b":path"] == b"/begun":
                await h2.head(asked.id, (b"content-length", b"9"))
                await h2.data(asked.id, b"part")
            h2.h2.reset_stream(asked.id, ErrorCodes.INTERNAL_ERROR)
            await h2.flush()

    async with proxy("express", script, setup=HTTP2) as lb:
        client = await lb.client()
        await client.send(post(b"x", path=path))
        if path == b"/begun":
            assert (await client.rest()).endswith(b"part")
        else:
            assert (await client.answer()).status == 502
        (record,) = await lb.wait_records(1)
        assert "INTERNAL_ERROR" in (record.reason or "")
        assert len(lb.backends[0].peers) == 1


@trio_test(timeout_s=8)
async def test_a_connection_that_ended_while_it_was_idle_loses_no_post() -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        asked = await h2.request()
        await h2.answer(asked.id, b"hello")
        peer.end()
        await peer.wait_ended()

    async with proxy("express", script, setup=HTTP2) as lb:
        client = await lb.client()
        for _ in range(5):
            await client.send(post(b"x"))
            assert (await client.answer()).status == 200


@pytest.mark.parametrize(("request_", "status"), [(GET, 200), (post(b"x"), 502)], ids=["get", "post"])
@trio_test(timeout_s=8)
async def test_a_connection_that_dies_loses_only_what_may_not_be_replayed(request_: bytes, status: int) -> None:
    kills = [True]

    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        while True:
            asked = await h2.request()
            if asked.fields[b":path"] != b"/first" and kills:
                kills.clear()
                peer.reset()
                return
            await h2.answer(asked.id, b"hello")

    async with proxy("express", script, setup=HTTP2) as lb:
        client = await lb.client()
        await client.send(get(b"/first"))
        await client.answer()
        await client.send(request_)
        answer = await client.answer()
        assert answer.status == status
        assert not lb.lanes.connections or answer.get(b"connection") is None


@trio_test(timeout_s=8)
async def test_a_client_that_leaves_cancels_its_stream_and_no_other() -> None:
    cancelled = trio.Event()

    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        stays, leaves = await h2.request(), await h2.request()
        await h2.until(lambda: leaves.reset is not None)
        assert leaves.reset == ErrorCodes.CANCEL
        cancelled.set()
        await h2.answer(stays.id, b"hello")
        await peer.wait_ended()

    async with proxy("express", script, setup=HTTP2) as lb:
        stays, leaves = await lb.client(), await lb.client()
        await stays.send(GET)
        await wait_until(lambda: lb.backends[0].peers)
        await trio.sleep(0.01)
        await leaves.send(GET)
        await wait_until(lambda: lb.leases == 2)
        await trio.sleep(0.01)
        leaves.close()
        await cancelled.wait()
        assert (await stays.answer()).body == b"hello"
        records = await lb.wait_records(2)
        assert sorted(record.status for record in records) == [200, 499]


@pytest.mark.parametrize(
    "fields",
    [
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"transfer-encoding", b"chunked")],
        [(b":status", b"101")],
        [(b":status", b"200"), (b"X-Upper", b"1")],
        [(b":status", b"200"), (b"x", b"a\r\nb: c")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b"x", b"1")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")],
        [(b":status", b"200"), (b"x", b"y" * 70_000)],
    ],
    ids=["connection", "coding", "101", "upper", "crlf", "twice", "none", "lengths", "large"],
)
@trio_test(timeout_s=8)
async def test_a_malformed_head_is_a_502_of_its_stream_alone(fields: list[tuple[bytes, bytes]]) -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        h2.h2.config.validate_outbound_headers = False
        h2.h2.config.normalize_outbound_headers = False
        bad, good = await h2.request(), await h2.request()
        h2.h2.encoder.huffman_coding = False  # type: ignore[attr-defined]
        block = h2.h2.encoder.encode(fields)
        parts = [block[at : at + 16000] for at in range(0, len(block), 16000)]
        first = HeadersFrame(bad.id, parts[0], flags=["END_HEADERS"] if len(parts) == 1 else [])
        await h2.frame(first)
        for number, part in enumerate(parts[1:], 2):
            await h2.frame(ContinuationFrame(bad.id, part, flags=["END_HEADERS"] if number == len(parts) else []))
        await h2.until(lambda: bad.reset is not None)
        await h2.answer(good.id, b"hello")
        await peer.wait_ended()

    async with proxy("express", script, setup=HTTP2) as lb:
        one, two = await lb.client(), await lb.client()
        await one.send(post(b"1"))
        await wait_until(lambda: lb.leases == 1 and lb.backends[0].peers)
        await two.send(post(b"2"))
        assert (await one.answer()).status == 502
        assert (await two.answer()).body == b"hello"


@trio_test(timeout_s=8)
async def test_a_server_of_http1_behind_it_is_told_as_such() -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"PRI * HTTP/2.0\r\n\r\n")
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        peer.end()
        await peer.wait_ended()

    async with proxy("express", script, setup=HTTP2) as lb:
        assert (await lb.ask(post(b"x"))).status == 502
        assert "HTTP/2" in ((await lb.wait_records(1))[0].reason or "")
