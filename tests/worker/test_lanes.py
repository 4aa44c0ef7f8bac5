"""The two lanes and the ways between them: why an exchange is handed over, and that its connection comes back."""

import pytest
import trio
import trio.testing
from support.peer import Peer
from support.proxy import GET, OK, Setup, answering, get, lanes, never_answering, post, post_chunked, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.settings import ListenerLimits, ListenerTimeouts, PoolTimeouts, RouteSettings
from lbproxy.worker.context import Context
from lbproxy.worker.front.accept import Acceptor
from lbproxy.worker.handover import LAST_REQUEST_S
from lbproxy.worker.lanes import OFF_VARIABLE, Lanes

LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("asked", "answer", "why"),
    [
        (GET, OK, None),
        (post(b"abc"), OK, None),
        (post(bytes(200_000)), OK, None),
        (get(b"/", method=b"HEAD"), OK.removesuffix(b"hello"), None),
        (GET, LONG, None),
        (GET, CHUNKED + b"1\r\na\r\n0\r\n\r\n", None),
        (get(b"/", b"Connection: keep-alive", minor=0), OK, None),
        (post_chunked(b"abc", b"d", trailers=b"X-Sum: 7\r\n"), OK, None),
        (post_chunked(bytes(200_000)), OK, "chunked"),
        (post(b"abc", b"Expect: 100-continue"), OK, "expect"),
        (get(b"/", b"Connection: Upgrade", b"Upgrade: websocket"), OK, "upgrade"),
        (get(b"/", b"Connection: keep-alive", minor=0), CHUNKED + b"0\r\n\r\n", "chunked_reply"),
        (GET, b"HTTP/1.1 103 Hints\r\n\r\n" + OK, "interim"),
        (GET, b"rubbish\r\n\r\n", "bad_response"),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n", "stream"),
    ],
)
@trio_test(timeout_s=8)
async def test_what_is_simple_stays_and_what_is_hard_is_handed_over_and_comes_back(
    asked: bytes, answer: bytes, why: str | None
) -> None:
    async with proxy("express", answering(answer)) as lb:
        client = await lb.client()
        for number in (1, 2):
            await client.send(asked)
            response = await client.answer(asked.split(b" ")[0])
            if response.get(b"connection") == b"close":
                client = await lb.client()
            assert lb.lanes.handed_over == ({} if why is None else {why: number})
        await wait_until(lambda: not lb.lanes._in_tasks)  # the connection is back on the reactor
        assert lb.router.tally.served == (2 if why is None else 0)


@trio_test(timeout_s=8)
async def test_a_hand_over_does_not_cost_the_backend_its_connection() -> None:
    async with proxy("express", answering(b"HTTP/1.1 103 Hints\r\n\r\n" + OK)) as lb:
        client = await lb.client()
        for _ in range(5):
            await client.send(GET)
            assert (await client.answer()).status == 200
        assert len(lb.backends[0].peers) == 1


@trio_test(timeout_s=8)
async def test_an_answer_that_only_the_end_ends_is_handed_over() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall")

    async with proxy("express", script) as lb:
        assert (await lb.ask(GET)).body == b"all"
        assert lb.lanes.handed_over == {"until_close": 1}


@trio_test(timeout_s=8)
async def test_what_only_turns_out_to_be_hard_is_handed_over_with_its_lease() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\nabc\r\n")
        await go_on.wait()
        await peer.send(b"0\r\n\r\n")

    async with proxy("express", script) as lb:
        go_on = trio.Event()
        client = await lb.client()
        await client.send(GET)
        await client.until(b"abc")
        assert (lb.leases, lb.lanes.handed_over) == (1, {"chunked_reply": 1})
        go_on.set()
        await client.until(b"0\r\n\r\n")
        await wait_until(lambda: lb.leases == 0)


@trio_test(timeout_s=8)
async def test_why_nothing_could_be_claimed_is_counted() -> None:
    setup = Setup(pool=None, routes=(RouteSettings("web", None, "/in"),))
    async with proxy("express", answering(OK), setup=setup) as lb:
        client = await lb.client()
        await client.send(GET)
        assert (await client.answer()).status == 404
        lb.publish()
        await client.send(get(b"/in"))
        await wait_until(lambda: lb.router.waiting("web") == 1)
        lb.publish(0)
        assert (await client.answer()).status == 200
        lb.backends[0].refuse()
        lb.context.backends.close()
        await client.send(get(b"/in"))
        await wait_until(lambda: lb.router.waiting("web") == 1)
        assert lb.lanes.handed_over == {"no_route": 1, "queue": 1, "connect": 1}


@trio_test(timeout_s=8)
async def test_slowness_is_handed_over() -> None:
    short = 0.2
    setup = Setup(timeouts=ListenerTimeouts(header_s=short, body_s=short), pool_timeouts=PoolTimeouts(response_s=short))
    async with proxy("express", never_answering, setup=setup) as lb:
        for asked, status, why in (
            (b"GET / HTTP", 408, "slow_head"),
            (post(b"abc")[:-1], 408, "slow_body"),
            (post(bytes(100_000))[:-1], 408, "slow_body"),
            (GET, 504, "slow_reply"),
        ):
            before = lb.lanes.handed_over.get(why, 0)
            assert (await lb.ask(asked)).status == status
            assert lb.lanes.handed_over[why] == before + 1


@trio_test(timeout_s=8)
async def test_what_is_refused_is_answered_by_the_task_lane() -> None:
    async with proxy("express", answering(OK), setup=Setup(limits=ListenerLimits(body_bytes=10))) as lb:
        for asked, status in ((b"BAD\r\n\r\n", 400), (post(bytes(11)), 413)):
            assert (await lb.ask(asked)).status == status
        assert lb.lanes.handed_over == {"refused": 2}


@trio_test(timeout_s=8)
async def test_a_head_that_is_handed_over_has_not_come_twice() -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        for number in range(20):
            await client.send(post(b"", b"Expect: 100-continue", b"Trace: %d" % number))
            assert (await client.answer()).status == 200
        assert lb.lanes.handed_over == {"expect": 20}
        for lines in (lb.lanes.lines, lb.context.lines):
            assert len(lines.requests) < 8


@trio_test(timeout_s=8)
async def test_with_the_express_lane_off_a_connection_stays_in_its_task() -> None:
    async with proxy("task", answering(OK)) as lb:
        client = await lb.client()
        for _ in range(5):
            await client.send(GET)
            await client.answer()
        assert lb.lanes.handed_over == {"off": 1}
        assert lb.router.tally.served == 0
        assert lb.lanes.connections == len(lb.lanes._in_tasks) == 1


@trio_test(timeout_s=8)
async def test_the_environment_turns_the_express_lane_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy("express", answering(OK)) as lb:
        made: list[bool] = []
        for value in ("off", "on", ""):
            monkeypatch.setenv(OFF_VARIABLE, value)
            context: Context = lb.context
            acceptor: Acceptor = lb.acceptor
            made.append(Lanes(context, acceptor).off)
        assert made == [True, False, False]


@lanes
@trio_test(timeout_s=8)
async def test_an_idle_client_may_ask_to_the_very_last_moment(lane: str) -> None:
    """What has been said before the stop is answered, though nobody has read it yet."""
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        await client.send(GET)
        await client.answer()
        await wait_until(lambda: all(talk.idle_scope is not None for talk in lb.lanes._in_tasks.values()))
        (record,) = lb.lanes._records
        record.entered_at -= 2 * LAST_REQUEST_S  # type: ignore[union-attr]  # it has been silent for long enough to go
        await client.send(GET)
        lb.acceptor.leave_all()
        lb.lanes.stop(30.0)
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


@lanes
@trio_test(timeout_s=8)
async def test_who_has_connected_just_now_may_still_ask_when_it_stops(lane: str) -> None:
    """Its request is on its way: a connection that closes under it would be a request lost."""
    async with proxy(lane, answering(OK)) as lb:
        client, silent = await lb.client(), await lb.client()
        await wait_until(lambda: lb.lanes.connections == 2)
        lb.acceptor.leave_all()
        lb.lanes.stop(30.0)
        await trio.testing.wait_all_tasks_blocked()
        assert lb.lanes.connections == 2
        await client.send(GET)
        answer = await client.answer()
        assert answer.status == 200
        assert answer.get(b"connection") == b"close"
        began = trio.current_time()
        assert await client.rest() == await silent.rest() == b""
        assert trio.current_time() - began < LAST_REQUEST_S + 1.0, "silence does not hold the stop up"
        assert lb.lanes.connections == 0


@lanes
@pytest.mark.parametrize("pipelined", [False, True])
@trio_test(timeout_s=8)
async def test_who_was_promised_a_next_request_before_the_stop_may_make_it(lane: str, pipelined: bool) -> None:
    """The head of the answer went out without `Connection: close`; its end comes behind the stop."""

    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await go_on.wait()
        await peer.send(b"world")
        await peer.request()
        await peer.send(OK)

    async with proxy(lane, slow) as lb:
        go_on = trio.Event()
        client = await lb.client()
        await client.send(GET)
        head = await client.until(b"hello")
        if pipelined:
            await client.send(GET)
        lb.acceptor.leave_all()
        lb.lanes.stop(30.0)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert b"onnection: close" not in head
        assert await client.until(b"world")
        if not pipelined:
            await client.send(GET)
        answer = await client.answer()
        assert (answer.status, answer.get(b"connection")) == (200, b"close")
        assert await client.rest() == b""


@trio_test(timeout_s=8)
async def test_a_table_changes_the_limits_of_open_connections() -> None:
    async with proxy("express", answering(OK), setup=Setup(limits=ListenerLimits(body_bytes=10))) as lb:
        client = await lb.client()
        await client.send(post(bytes(10)))
        assert (await client.answer()).status == 200
        lb.setup = Setup(limits=ListenerLimits(body_bytes=20))
        lb.publish(0)
        lb.lanes.refresh(lb.router.table.listeners)
        await client.send(post(bytes(20)))
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("limits", [ListenerLimits(headers=1), ListenerLimits(header_bytes=40)], ids=["lines", "bytes"])
@pytest.mark.parametrize("fields", [(b"A: b",) * 4, (b"A: b", b"A: c", b"A: d", b"A: e")], ids=["the same", "alike"])
@trio_test(timeout_s=8)
async def test_a_head_that_is_known_must_keep_to_new_limits_too(
    limits: ListenerLimits, fields: tuple[bytes, ...]
) -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        for field in fields[:-1]:
            await client.send(get(b"/", field, b"Padding: to be over forty bytes"))
            assert (await client.answer()).status == 200
        lb.setup = Setup(limits=limits)
        lb.publish(0)
        lb.lanes.refresh(lb.router.table.listeners)
        await client.send(get(b"/", fields[-1], b"Padding: to be over forty bytes"))
        assert (await client.answer()).status == 431
