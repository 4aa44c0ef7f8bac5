"""Whoever leaves, at whatever point, takes nothing along: the other side is let go of, the log says what was."""

from collections.abc import Callable

import pytest
import trio.testing
from support.peer import Ended, Peer
from support.proxy import (
    GET,
    LANES,
    OK,
    Setup,
    answering,
    every_lane,
    get,
    lanes,
    never_answering,
    post,
    post_chunked,
    proxy,
    wait_until,
)
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import PoolTimeouts

UPLOAD = post(bytes(200_000))
LEAVING: dict[str, Callable[[Peer], None]] = {"ends": Peer.end, "closes": Peer.close, "resets": Peer.reset}
ways_to_leave = pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING)


@every_lane
@ways_to_leave
@pytest.mark.parametrize(
    "asked", [GET, post(b"abc"), UPLOAD, post_chunked(b"abc")], ids=["get", "post", "up", "chunks"]
)
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "kept"])
@trio_test(timeout_s=8)
async def test_an_answer_that_nobody_waits_for_is_not_worked_on(
    lane: str, asked: bytes, leave: Callable[[Peer], None], before: bytes
) -> None:
    answers = iter([OK] if before else [])

    async def script(peer: Peer) -> None:
        await peer.request()
        for answer in answers:
            await peer.send(answer)
            await peer.request()  # or what may not be lost comes on a fresh connection
        asks.set()
        await peer.wait_ended()
        abandoned.set()

    async with proxy(lane, script) as lb:
        asks, abandoned = trio.Event(), trio.Event()
        client = await lb.client()
        if before:
            await client.send(before)
            await client.answer()
        await client.send(asked)
        await asks.wait()
        leave(client)
        await abandoned.wait()
        record = (await lb.wait_records(2 if before else 1))[-1]
        assert (record.status, record.response_bytes, record.error) == (499, 0, "client_gone")
        assert record.backend == "web.1"
        assert lb.count(Counter.FAILED) == 0
        assert lb.count(Counter.REQUESTS) == len(lb.records)


@every_lane
@ways_to_leave
@pytest.mark.parametrize(
    "begun",
    [b"GET / HTTP/1.1\r\nHo", post(bytes(1000))[:-9], UPLOAD[:150_000], post_chunked(b"abc")[:-3]],
    ids=["head", "body", "upload", "chunks"],
)
@trio_test(timeout_s=8)
async def test_who_leaves_in_the_middle_of_a_request_has_not_asked(
    lane: str, begun: bytes, leave: Callable[[Peer], None]
) -> None:
    async with proxy(lane, never_answering) as lb:
        client = await lb.client()
        await client.send(begun)
        await trio.testing.wait_all_tasks_blocked(0.01)
        leave(client)
        await wait_until(lambda: not lb.lanes.connections and (lb.records or begun.startswith(b"GET")))
        for peer in lb.backends[0].peers:
            await wait_until(lambda peer=peer: peer.sock.fileno() < 0)  # its script has read the end
        if begun.startswith(b"GET"):
            assert not lb.records
        else:
            assert [(record.status, record.error) for record in lb.records] == [(499, "client_gone")]


@every_lane
@ways_to_leave
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@trio_test(timeout_s=8)
async def test_who_leaves_in_the_middle_of_an_answer_stops_its_backend(
    lane: str, framing: str, leave: Callable[[Peer], None]
) -> None:
    fields = {"length": b"Content-Length: 1000000000\r\n", "chunked": b"Transfer-Encoding: chunked\r\n", "close": b""}

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + fields[framing] + b"\r\n")
        try:
            while True:
                await peer.send(b"1000\r\n" + bytes(4096) + b"\r\n")
        finally:
            stopped.set()

    async with proxy(lane, script) as lb:
        stopped = trio.Event()
        client = await lb.client()
        await client.send(GET)
        await client.exactly(100_000)
        leave(client)
        await stopped.wait()
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (200, "client_gone")


@every_lane
@trio_test(timeout_s=8)
async def test_who_leaves_while_it_waits_for_a_backend_frees_its_place(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        lb.publish()
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.router.waiting("web") == 1)
        client.close()
        await wait_until(lambda: lb.router.waiting("web") == 0)
        (record,) = await lb.wait_records(1)
        assert (record.status, record.backend, record.error) == (499, None, "client_gone")


POINTS = [0, 1, 10, 40, 43, 100, 70_000, 190_000]


@every_lane
@pytest.mark.parametrize("how", LEAVING.values(), ids=LEAVING)
@trio_test(timeout_s=10)
async def test_a_client_may_leave_at_any_point(lane: str, how: Callable[[Peer], None]) -> None:
    """Of a request and its answer; what is left behind is counted when the test ends."""
    async with proxy(
        lane, answering(OK, OK, b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + bytes(90_000))
    ) as lb:
        for asked in (GET, GET + GET, UPLOAD, post_chunked(bytes(100_000))):
            for point in POINTS:
                client = await lb.client()
                await client.send(asked[:point])
                if point % 2:
                    await trio.testing.wait_all_tasks_blocked()
                how(client)
        for answered in (1, 50, 130, 150, 200):
            client = await lb.client()
            await client.send(GET + GET)
            await client.exactly(answered)
            how(client)
        await wait_until(lambda: not lb.lanes.connections)
        assert (await lb.ask(GET)).status == 200


@every_lane
@pytest.mark.parametrize("how", ["ends", "resets"])
@pytest.mark.parametrize("asked", [GET, post(b"abc"), UPLOAD, post_chunked(bytes(100_000))])
@trio_test(timeout_s=10)
async def test_a_backend_may_leave_at_any_point(lane: str, asked: bytes, how: str) -> None:
    """Before the head of its answer: 502. After it: a cut. The next request is served."""
    points = iter(range(1000))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"

    async def script(peer: Peer) -> None:
        point = next(points)
        if point < 3:
            await peer.exactly(30 * point)
        else:
            await peer.request()
            await peer.send(answer[: (point - 3) * 7])
        if how == "resets":
            peer.reset()

    async with proxy(lane, script) as lb:
        outcomes: list[int | None] = []
        for _ in range(11):
            client = await lb.client()
            outcome: int | None = None
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_send, client, asked)
                    outcome = (await client.answer()).status
                    nursery.cancel_scope.cancel()
            except* Ended:
                outcome = None
            outcomes.append(outcome)
        assert set(outcomes[:3]) == {502}
        assert outcomes[-1] == 200
        assert set(outcomes) <= {200, 502, None}
        assert outcomes.count(200) <= 3  # a GET meets two of the points
        records = await lb.wait_records(11)
        assert [record.status for record in records if record.status != 200] == [502] * outcomes.count(502)
        assert all(
            (record.error is None) == (outcome == 200) for record, outcome in zip(records, outcomes, strict=True)
        )


async def _send(client: Peer, data: bytes) -> None:
    try:
        await client.send(data)
    except Ended:
        return


@every_lane
@pytest.mark.parametrize(
    ("asked", "times"),
    [(GET, 2), (get(b"/", method=b"PUT"), 2), (post(b"abc"), 1), (get(b"/", method=b"BREW"), 1)],
)
@trio_test(timeout_s=8)
async def test_a_backend_that_never_answers_is_asked_twice_at_most(lane: str, asked: bytes, times: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with proxy(lane, script) as lb:
        client = await lb.client()
        for _ in range(2):
            await client.send(asked)
            answer = await client.answer()
            assert answer.status == 502
            assert answer.get(b"proxy-status") == b"edge; error=connection_terminated"
            assert answer.get(b"connection") is None  # it is not the client's fault
        assert len(lb.backends[0].peers) == 2 * times
        record = (await lb.wait_records(2))[-1]
        assert (record.status, record.backend, record.error) == (502, "web.1", "connection_terminated")


def closing_when_used_again(how: str) -> Callable[[Peer], object]:
    """It answers once; the next request finds the connection gone, in the very moment it is sent."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.head()
        if how == "resets":
            peer.reset()

    return script


@every_lane
@pytest.mark.parametrize("how", ["ends", "resets"])
@trio_test(timeout_s=8)
async def test_what_may_be_replayed_is_when_an_idle_connection_proves_stale(lane: str, how: str) -> None:
    for method, body in ((b"GET", b""), (b"HEAD", b""), (b"PUT", b"abc"), (b"DELETE", b""), (b"OPTIONS", b"")):
        async with proxy(lane, closing_when_used_again(how)) as lb:  # type: ignore[arg-type]
            client = await lb.client()
            asked = get(b"/", b"Content-Length: %d" % len(body), method=method) + body
            for _ in range(3):
                await client.send(asked)
                if method == b"HEAD":
                    assert (await client.head()).status == 200
                    await lb.ask(GET)
                    break
                assert (await client.answer(method)).body == b"hello", method
            assert {record.status for record in lb.records} == {200}


@lanes
@pytest.mark.parametrize("how", ["ends", "resets"])
@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"BREW"])
@trio_test(timeout_s=8)
async def test_what_may_not_be_replayed_is_not(lane: str, method: bytes, how: str) -> None:
    async with proxy(lane, closing_when_used_again(how)) as lb:  # type: ignore[arg-type]
        asked = get(b"/", b"Content-Length: 3", method=method) + b"xyz"
        for _ in range(2):
            client = await lb.client()
            await client.send(asked)
            assert (await client.answer()).status == 200
            await client.send(asked)  # on the kept connection, which ends: so does the client's, and it may ask again
            assert await client.rest() == b""
        assert lb.backends[0].received.count(b"xyz") == 4
        records = await lb.wait_records(4)
        assert [record.status for record in records] == [200, 502, 200, 502]
        assert records[1].error == "connection_terminated"
        assert lb.count(Counter.FAILED) == 2


@every_lane
@pytest.mark.parametrize("first", [post(b"xyz"), UPLOAD, post_chunked(b"xyz")], ids=["post", "upload", "chunks"])
@trio_test(timeout_s=8)
async def test_the_first_request_that_may_not_be_replayed_never_goes_out_on_a_kept_connection(
    lane: str, first: bytes
) -> None:
    async with proxy(lane, closing_when_used_again("ends")) as lb:  # type: ignore[arg-type]
        for _ in range(3):
            client = await lb.client()
            await client.send(GET)
            assert (await client.answer()).status == 200
            await client.send(first)
            assert (await client.answer()).status == 200
            client.close()
            await wait_until(lambda: not lb.lanes.connections)
        assert {record.status for record in lb.records} == {200}


@every_lane
@trio_test(timeout_s=8)
async def test_a_connection_that_ended_while_it_was_idle_is_not_used_again_for_anything(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async with proxy(lane, script) as lb:
        client = await lb.client()
        for asked in (GET, post(b"abc"), GET, post(b"abc"), post_chunked(b"abc"), get(b"/", method=b"BREW")):
            await client.send(asked)
            assert (await client.answer()).status == 200
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(lb.backends[0].peers) == 6


@lanes
@trio_test(timeout_s=8)
async def test_an_idle_connection_is_not_used_longer_than_it_may(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=Setup(pool_timeouts=PoolTimeouts(keepalive_s=0.2))) as lb:
        await lb.ask(GET)
        await lb.ask(GET)
        assert len(lb.backends[0].peers) == 1
        await wait_until(lambda: lb.backends[0].peers[0].sock.fileno() < 0)  # although nobody asks
        await lb.ask(GET)
        assert len(lb.backends[0].peers) == 2


@trio_test(timeout_s=8)
async def test_both_lanes_retry_and_count_alike() -> None:
    counts = []
    for lane in LANES:
        async with proxy(lane, closing_when_used_again("ends")) as lb:  # type: ignore[arg-type]
            client = await lb.client()
            for asked in (GET, GET, post(b"abc"), GET, GET):
                await client.send(asked)
                await client.answer()
            await client.send(post(b"abc"))
            await client.rest()
            records = [(record.status, record.error) for record in await lb.wait_records(6)]
            counts.append((records, lb.count(Counter.REQUESTS), lb.count(Counter.FAILED)))
    assert counts[0] == counts[1]
    assert counts[0][1] == 6


@lanes
@pytest.mark.parametrize(
    "asked", [GET, post(b"abc"), post_chunked(b"abc"), GET + GET], ids=["get", "post", "chunks", "two"]
)
@trio_test(timeout_s=8)
async def test_a_client_that_ends_its_side_is_answered_all_the_same_where_the_listener_says_so(
    lane: str, asked: bytes
) -> None:
    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await trio.sleep(0.1)
            await peer.send(OK)

    async with proxy(lane, slow, setup=Setup(half_close="serve")) as lb:
        client = await lb.client()
        await client.send(asked)
        client.end()
        for _ in range(2 if asked == GET + GET else 1):
            assert (await client.answer()).body == b"hello"
        assert await client.rest() == b""
        assert {record.status for record in await lb.wait_records(1)} == {200}


@pytest.mark.parametrize("size", [5, 3_000_000], ids=["small", "large"])
@trio_test(timeout_s=8)
async def test_a_close_notify_without_a_fin_is_an_end_as_well(size: int) -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await trio.sleep(0.1)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, bytes(size)))

    async with proxy("tls", slow, setup=Setup(half_close="serve")) as lb:
        client = await lb.client()
        await client.send(GET)
        client.sock.say_end()  # type: ignore[attr-defined]
        assert (len((await client.answer()).body), await client.rest()) == (size, b"")  # long before timeouts.idle


@lanes
@trio_test(timeout_s=8)
async def test_a_client_that_ends_its_side_in_its_body_is_gone_whatever_the_listener_says(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=Setup(half_close="serve")) as lb:
        client = await lb.client()
        await client.send(post(b"abc")[:-1])
        client.end()
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (499, "client_gone")
