"""Bodies of every framing and size, in both directions, in bounded memory; who is slow holds no backend."""

import pytest
import trio
import trio.testing
from support.bodies import LARGE, MB, framed
from support.peer import Ended, Peer
from support.proxy import EMPTY, GET, OK, Proxy, Setup, answering, every_lane, get, lanes, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import ListenerLimits, ListenerTimeouts, PoolTimeouts

SMALL_WINDOWS = Setup(send_bytes=4096)  # of what the kernel holds for a client


class Heard:
    """A backend's script that keeps the requests and answers each."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.bodies: list[bytes] = []
        self.trailers: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.bodies.append(request.body)
            self.trailers += request.trailers
            await peer.send(self.answer)


def in_hand(lb: Proxy) -> int:
    """Bytes that lbproxy holds for its clients and of them."""
    express = sum(len(record.buffer) + len(record.unflushed) + len(record.unsent) for record in lb.lanes._records)  # type: ignore[union-attr]
    return express + sum(len(client.buffer) + client.stream.pending for client in lb.lanes._in_tasks.values())


@lanes
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [1000, 50_000])
@trio_test(timeout_s=20)
async def test_uploads_arrive_whole(lane: str, framing: str, size: int) -> None:
    heard = Heard()
    async with proxy(lane, heard) as lb:
        client = await lb.client()
        for data in (LARGE[: size * 40], b"", LARGE[:70_000]):
            field, pieces = framed(data, framing, size)
            await client.send(get(b"/", field, method=b"POST"))
            for piece in pieces:
                await client.send(piece)
            assert (await client.answer()).body == b"hello"
            assert heard.bodies.pop() == data
        assert heard.trailers == ([b"X-Sum: 1"] * 3 if framing == "chunked" else [])
        records = await lb.wait_records(3)
        assert [record.request_bytes for record in records] == [size * 40, 0, 70_000]


@every_lane
@pytest.mark.parametrize("framing", ["length", "chunked"])
@trio_test(timeout_s=20)
async def test_three_megabytes_in_one_go_behind_another_request_and_before_one(lane: str, framing: str) -> None:
    heard = Heard()
    field, pieces = framed(LARGE, framing)
    async with proxy(lane, heard) as lb:
        client = await lb.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, GET + get(b"/", field, method=b"PUT") + b"".join(pieces) + post(b"last"))
            for _ in range(3):
                assert (await client.answer()).body == b"hello"
        assert heard.bodies == [b"", LARGE, b"last"]


@lanes
@pytest.mark.parametrize("framing", ["length", "chunked", "close", "old_chunked", "old_close", "old_length"])
@trio_test(timeout_s=20)
async def test_downloads_arrive_whole(lane: str, framing: str) -> None:
    old = framing.startswith("old")
    body = LARGE + LARGE[: 2 * MB]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            if framing.endswith("close"):
                await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)
                return
            field, pieces = framed(body, framing.removeprefix("old_"))
            await peer.send(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n")
            for piece in pieces:
                await peer.send(piece)

    async with proxy(lane, script) as lb:
        client = await lb.client()
        for _ in range(2):
            await client.send(get(b"/", b"Connection: keep-alive", minor=0 if old else 1))
            answer = await client.answer()
            assert answer.body == body
            if answer.get(b"connection") == b"close":
                client = await lb.client()
        records = await lb.wait_records(2)
        assert {(record.status, record.response_bytes, record.error) for record in records} == {(200, len(body), None)}


@lanes
@trio_test(timeout_s=8)
async def test_answers_come_in_the_order_of_their_requests(lane: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            target = (await peer.request()).start.split(b" ")[1]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    async with proxy(lane, script, script, script) as lb:
        client = await lb.client()
        targets = [b"/%d" % number for number in range(300)]
        await client.send(b"".join(map(get, targets)))
        assert [(await client.answer()).body for _ in targets] == targets


@lanes
@trio_test(timeout_s=8)
async def test_requests_of_every_kind_may_follow_each_other_in_one_packet(lane: str) -> None:
    heard = Heard()
    asked = [
        *(get(b"/", method=b"HEAD"), GET, post(b"abc")),
        get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + b"3\r\nxyz\r\n0\r\n\r\n",
        *(b"\r\n" + GET, get(b"/", method=b"HEAD"), get(b"/", method=b"OPTIONS")),
        *(get(b"/", b"Connection: keep-alive", minor=0), get(b"/", b"Connection: close"), post(b"never")),
    ]
    async with proxy(lane, heard) as lb:
        client = await lb.client()
        await client.send(b"".join(asked))
        for data in asked[:-1]:
            method = data.lstrip().split(b" ")[0]
            assert (await client.answer(method)).body == (b"" if method == b"HEAD" else b"hello")
        assert await client.rest() == b""
        assert not client.is_reset
        assert heard.bodies == [b"", b"", b"abc", b"xyz", *(b"",) * 5]


@lanes
@trio_test(timeout_s=8)
async def test_a_head_and_a_get_behind_it_are_not_confused(lane: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(OK if request.start.startswith(b"GET") else OK.removesuffix(b"hello"))

    async with proxy(lane, script) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(get(b"/", method=b"HEAD") + GET)
            head = await client.answer(b"HEAD")
            assert (head.get(b"content-length"), head.body) == (b"5", b"")
            assert (await client.answer()).body == b"hello"


@lanes
@trio_test(timeout_s=8)
async def test_what_a_client_says_ahead_is_bounded(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.send(OK)
        await answering(OK)(peer)

    async with proxy(lane, script) as lb:
        go_on = trio.Event()
        client = await lb.client()
        async with trio.open_nursery() as nursery:
            await client.send(GET)
            nursery.start_soon(client.send, get(b"/ahead") * 100_000)
            await trio.testing.wait_all_tasks_blocked(0.03)
            assert 64 * 1024 <= in_hand(lb) <= 144 * 1024
            nursery.cancel_scope.cancel()
            go_on.set()


@every_lane
@trio_test(timeout_s=8)
async def test_a_body_up_to_64_kib_is_complete_before_a_backend_is_taken(lane: str) -> None:
    heard = Heard()
    async with proxy(lane, heard) as lb:
        for field, pieces in (framed(LARGE[:60_000], "length", 20_000), framed(LARGE[:60_000], "chunked", 20_000)):
            peers = len(lb.backends[0].peers)
            client = await lb.client()
            await client.send(get(b"/", field, method=b"POST"))
            for piece in pieces[:-1]:
                await client.send(piece)
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(lb.backends[0].peers) == peers
            assert lb.leases == 0
            await client.send(pieces[-1])
            assert (await client.answer()).status == 200
            assert heard.bodies.pop() == LARGE[:60_000]
            lb.context.backends.close()


@every_lane
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [10_000, 60_000])
@trio_test(timeout_s=8)
async def test_an_answer_up_to_64_kib_is_read_at_once_however_slow_its_reader(
    lane: str, framing: str, size: int
) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            field, pieces = framed(LARGE[:size], framing, 10_000)
            await peer.send(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n")
            for piece in pieces:
                await peer.dribble(piece, len(piece))

    async with proxy(lane, script, setup=SMALL_WINDOWS) as lb:
        client = await lb.client(receive_bytes=2048)
        await client.send(GET)
        await wait_until(lambda: lb.backends[0].received)
        await wait_until(lambda: lb.count(Counter.LEASES) == 0)
        assert not client.received
        assert (await lb.ask(GET)).body == LARGE[:size]
        assert len(lb.backends[0].peers) == 1
        assert (await client.answer()).body == LARGE[:size]


@lanes
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@trio_test(timeout_s=8)
async def test_a_slow_reader_stops_the_reading_of_its_backend(lane: str, framing: str) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        field = {"length": b"Content-Length: 1000000000\r\n", "chunked": b"Transfer-Encoding: chunked\r\n"}
        await peer.send(b"HTTP/1.1 200 OK\r\n" + field.get(framing, b"") + b"\r\n")
        piece = LARGE[:32_768] if framing != "chunked" else b"8000\r\n" + LARGE[:32_768] + b"\r\n"
        while True:
            await peer.send(piece)
            sent += 1

    async with proxy(lane, script, setup=SMALL_WINDOWS) as lb:
        client = await lb.client(receive_bytes=2048)
        await client.send(GET)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked(0.03)
            assert in_hand(lb) <= 200_000
            before = sent
            assert before < 1000
            while sent == before:  # and on it goes
                await client.exactly(10_000)


@lanes
@trio_test(timeout_s=8)
async def test_a_backend_that_reads_slowly_stops_the_reading_of_its_client(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await go_on.wait()
        assert await peer.exactly(len(LARGE) * 4) == LARGE * 4
        await peer.send(OK)

    async with proxy(lane, script) as lb:
        go_on = trio.Event()
        client = await lb.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, post(LARGE * 4))
            await trio.testing.wait_all_tasks_blocked(0.03)
            assert in_hand(lb) <= 200_000
            go_on.set()
            assert (await client.answer()).body == b"hello"


@every_lane
@trio_test(timeout_s=8)
async def test_a_backend_that_never_reads_is_a_504(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await trio.sleep_forever()

    setup = Setup(pool_timeouts=PoolTimeouts(idle_s=0.3), timeouts=ListenerTimeouts(body_s=5))
    async with proxy(lane, script, setup=setup) as lb:
        client = await lb.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_until_ended, client, post(LARGE * 6))
            answer = await client.answer()
            nursery.cancel_scope.cancel()
        assert answer.status == 504
        (record,) = await lb.wait_records(1)
        assert (record.status, record.error) == (504, "connection_write_timeout")


async def _send_until_ended(client: Peer, data: bytes) -> None:
    try:
        await client.send(data)
    except Ended:
        return


@lanes
@trio_test(timeout_s=20)
async def test_a_million_tiny_chunks_are_just_a_body(lane: str) -> None:
    heard = Heard(EMPTY)
    tiny = b"1\r\na\r\n" * 1_000_000 + b"0\r\n\r\n"
    async with proxy(lane, heard) as lb:
        client = await lb.client()
        passed: list[int] = []  # bytes of that body, while somebody else waited for an answer: no matter how fast

        def received() -> int:
            return sum(len(peer.received) for peer in lb.backends[0].peers)

        async def others(scope: trio.CancelScope) -> None:
            other = await lb.client()
            with scope:
                while True:
                    before = received()
                    await other.send(GET)
                    await other.answer()
                    passed.append(received() - before)
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(others, scope)
            nursery.start_soon(client.send, get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + tiny)
            await client.answer()
            scope.cancel()
        assert b"a" * 1_000_000 in heard.bodies
        assert len(passed) > 4
        assert max(passed) < 256 * 1024  # measured: up to 140,000, of over a million


CHUNKED_PUT = (
    get(b"/", b"Transfer-Encoding: chunked", method=b"PUT")
    + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\nHost: b\r\n\r\n"
)
FRAMED_ANEW = b"5\r\nabcde\r\n0\r\nX-Sum: 7\r\n\r\n"


@lanes
@trio_test(timeout_s=8)
async def test_a_chunked_request_that_is_all_here_is_framed_anew_and_what_is_behind_it_is_the_next(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(CHUNKED_PUT + GET)
            assert (await client.answer()).status == (await client.answer()).status == 200
        bodies = lb.backends[0].received.split(b"\r\n\r\n", 1)[1]
        assert bodies.startswith(FRAMED_ANEW + b"GET / HTTP/1.1\r\n")
        assert lb.backends[0].received.count(FRAMED_ANEW) == 3
        assert [record.request_bytes for record in await lb.wait_records(6)] == [5, 0] * 3
        assert lb.lanes.handed_over.get("chunked") is None


@lanes
@trio_test(timeout_s=8)
async def test_a_chunked_request_is_sent_once_whatever_its_answer_turns_out_to_be(lane: str) -> None:
    async with proxy(lane, answering(b"HTTP/1.1 103 Hints\r\n\r\n" + OK)) as lb:
        client = await lb.client()
        for number in (1, 2, 3):
            await client.send(CHUNKED_PUT)
            assert (await client.answer()).status == 200
            assert (
                lb.backends[0].received.count(FRAMED_ANEW) == lb.backends[0].received.count(b"\r\n\r\n") // 2 == number
            )


@lanes
@trio_test(timeout_s=8)
async def test_a_chunked_request_is_replayed_whole_when_its_connection_proves_stale(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()  # and the end

    async with proxy(lane, script) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(CHUNKED_PUT)
            assert (await client.answer()).status == 200
        assert lb.backends[0].received.count(FRAMED_ANEW) == 5


@every_lane
@trio_test(timeout_s=8)
async def test_a_chunked_request_over_the_limit_is_refused(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=Setup(limits=ListenerLimits(body_bytes=4))) as lb:
        assert (await lb.ask(CHUNKED_PUT, b"PUT")).status == 413
        assert lb.backends[0].received == b""
