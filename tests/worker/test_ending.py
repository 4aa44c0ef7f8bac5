"""Every end counts alike, whichever lane it comes from: the express lane inlines what worker/ending.py does."""

import pytest
import trio
from support.peer import Peer
from support.proxy import GET, LANES, OK, Script, Setup, answering, get, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.link.messages import Failures, Increase
from lbproxy.telemetry.events import ExchangeFailed

PARTLY = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"


def breaking_off(data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)

    return script


ENDS: dict[str, tuple[Script, bytes]] = {
    "served": (answering(OK), GET),
    "posted": (answering(OK), post(b"abc")),
    "closing": (answering(OK), get(b"/", b"Connection: close")),
    "broke off": (breaking_off(PARTLY), GET),
    "no answer": (breaking_off(b""), post(b"abc")),
    "nonsense": (breaking_off(b"nonsense\r\n\r\n"), GET),
    "refused": (answering(OK), b"nonsense\r\n\r\n"),
}


def tallied(increase: Increase) -> object:
    exchanges = [
        (part.pool, part.method, part.status, sum(part.buckets), part.request_bytes, part.response_bytes)
        for part in increase.exchanges
    ]
    return exchanges, increase.incidents


@pytest.mark.parametrize("kind", ENDS)
@trio_test(timeout_s=8)
async def test_both_lanes_count_log_and_report_an_end_alike(kind: str) -> None:
    script, asked = ENDS[kind]
    seen = []
    for lane in LANES:
        async with proxy(lane, script) as lb:
            client = await lb.client()
            await client.send(asked)
            await wait_until(lambda: lb.records)
            client.close()
            await wait_until(lambda: not lb.lanes.connections)
            (record,) = lb.records
            failures = [event for event in lb.events if isinstance(event, ExchangeFailed)]
            seen.append(
                (
                    (record.status, record.request_bytes, record.response_bytes, record.error, record.backend),
                    [(event.pool, event.backend, event.status, event.error, event.reason) for event in failures],
                    [lb.count(counter) for counter in (Counter.REQUESTS, Counter.FAILED, Counter.LEASES)],
                    tallied(lb.router.tally.take()),
                )
            )
    assert seen[0] == seen[1]


@trio_test(timeout_s=8)
async def test_a_tcp_session_that_finds_no_backend_is_written_down_and_reported() -> None:
    async with proxy("express", answering(OK), setup=Setup(mode="tcp")) as lb:
        lb.publish(is_hopeless=True)
        client = await lb.client()
        with trio.fail_after(4):
            assert await client.rest() == b""
        (record,) = lb.records
        assert (record.head.method, record.status, record.error) == (b"TCP", 503, "destination_unavailable")
        (event,) = [event for event in lb.events if isinstance(event, ExchangeFailed)]
        assert (event.pool, event.status, event.reason) == ("web", 503, record.reason)


@trio_test(timeout_s=8)
async def test_a_failure_tells_control_what_was_tried() -> None:
    async with proxy("task", breaking_off(b""), breaking_off(b"")) as lb:
        assert (await lb.ask(get(b"/it?a=b", method=b"GET"))).status == 502
        lb.context.failures.settle()
        (message,) = [one for one in lb.posted if isinstance(one, Failures)]
        (failure,) = message.items
        assert (failure.request, failure.client, failure.pool) == ("GET /it?a=b", "127.0.0.1", "web")
        assert (failure.status, failure.error) == (502, "connection_terminated")
        assert sorted(one.backend for one in failure.tries) == ["web.1@1", "web.2@1"]
        assert failure.tries[-1].why == failure.reason
        assert 0 <= failure.tries[0].after_s <= failure.tries[1].after_s <= failure.duration_s
