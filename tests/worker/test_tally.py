"""What a worker counts reaches control once, and whole."""

import pytest
import trio
from support.proxy import GET, OK, Setup, answering, get, lanes, never_answering, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.messages import Exchanges, Incidents, Increase, QueueWaits
from lbproxy.settings import PoolLimits
from lbproxy.worker.tally import BUCKETS, Tally, count


def counted(increase: Increase) -> list[tuple[str, str, int, int, int, int]]:
    return sorted(
        (part.pool, part.method, part.status, sum(part.buckets), part.request_bytes, part.response_bytes)
        for part in increase.exchanges
    )


def test_an_increase_is_taken_once() -> None:
    tally = Tally()
    count(tally.series("web", b"GET", 200), 0.002, 3, 5)
    count(tally.series("web", b"GET", 200), 30.0, 0, 5)
    tally.note("retry", "web", "connect")
    tally.note("retry", "web", "connect")
    tally.waited("web", 0.3)
    waited = [0] * BUCKETS
    waited[8] = 1
    buckets = (0, 1, *([0] * (BUCKETS - 3)), 1)
    assert tally.take() == Increase(
        (Exchanges("web", "GET", 200, buckets, 30.002, 3, 10),),
        (QueueWaits("web", tuple(waited), 0.3, 0.3),),
        (Incidents("retry", ("web", "connect"), 2),),
    )
    assert tally.take() == Increase()
    count(tally.series("web", b"GET", 200), 0.002, 0, 1)
    assert counted(tally.take()) == [("web", "GET", 200, 1, 0, 1)]


def test_no_duration_is_negative() -> None:
    tally = Tally()
    count(tally.series("web", b"GET", 101), -0.0004, 0, 0)
    (exchange,) = tally.take().exchanges
    assert (exchange.buckets[0], exchange.took_s) == (1, 0.0)


def test_methods_that_clients_invent_are_one() -> None:
    tally = Tally()
    for method in (b"get", b"BREW", b'X"\\', b"PATCH"):
        count(tally.series("web", method, 200), 0.0, 0, 0)
    assert [row[1:4] for row in counted(tally.take())] == [("OTHER", 200, 3), ("PATCH", 200, 1)]


@lanes
@trio_test(timeout_s=8)
async def test_every_answer_counts_with_its_method_status_and_bytes(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        for asked in (GET, GET, post(b"abc"), get(b"/", method=b"HEAD"), get(b"/", method=b"BREW")):
            await client.send(asked)
            method = asked.split(b" ")[0]
            await client.answer(method)
        await client.send(b"nonsense\r\n\r\n")
        await client.rest()
        await wait_until(lambda: len(lb.records) == 6)
        rows = counted(lb.router.tally.take())
        assert rows[0][:4] == ("", "OTHER", 400, 1)
        assert rows[1:] == [
            ("web", "GET", 200, 2, 0, 10),
            ("web", "HEAD", 200, 1, 0, 0),
            ("web", "OTHER", 200, 1, 0, 5),
            ("web", "POST", 200, 1, 3, 5),
        ]
        assert lb.router.tally.served == (0 if lane == "task" else 5)


@lanes
@trio_test(timeout_s=8)
async def test_a_client_that_leaves_counts_as_499(lane: str) -> None:
    async with proxy(lane, never_answering) as lb:
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.backends[0].received)
        client.close()
        await wait_until(lambda: lb.records)
        assert counted(lb.router.tally.take()) == [("web", "GET", 499, 1, 0, 0)]


@pytest.mark.parametrize("has_room", [True, False])
@trio_test(timeout_s=8)
async def test_the_wait_in_the_queue_is_measured_however_it_ends(has_room: bool) -> None:
    setup = Setup(pool_limits=PoolLimits(queue_timeout_s=0.05 if not has_room else 5.0))
    async with proxy("express", answering(OK), setup=setup) as lb:
        lb.publish()
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.router.waiting("web"))
        if has_room:
            lb.publish(0)
        with trio.fail_after(4):
            assert (await client.answer()).status == (200 if has_room else 503)
        (waits,) = lb.router.tally.take().waits
        assert (waits.pool, sum(waits.buckets)) == ("web", 1)
        assert waits.waited_s > 0


@trio_test(timeout_s=8)
async def test_a_refused_connection_is_an_error_of_the_backend_and_a_retry() -> None:
    async with proxy("express", answering(OK), answering(OK)) as lb:
        lb.backends[0].refuse()
        client = await lb.client()
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer()).status == 200
        incidents = {(one.name, *one.labels): one.number for one in lb.router.tally.take().incidents}
        assert incidents == {("backend_error", "web", "connection_refused"): 1, ("retry", "web", "connect"): 1}
