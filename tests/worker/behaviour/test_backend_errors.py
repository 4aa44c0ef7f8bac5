"""What counts as an error of a backend, in both lanes: refused and late connects, broken answers, time limits."""

import pytest
from support.peer import Peer
from support.proxy import GET, LANES, OK, Proxy, Script, Setup, answering, get, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.messages import BackendErrors
from lbproxy.settings import PoolTimeouts

TIMES = PoolTimeouts(response_s=0.2, idle_s=0.2, keepalive_s=30.0)
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"


def saying(data: bytes, *, stay: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        if stay:
            await peer.wait_ended()

    return script


def errors_of(lb: Proxy) -> int:
    return sum(message.number for message in lb.posted if isinstance(message, BackendErrors))


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("script", "asked"),
    [
        (saying(b""), post(b"abc")),
        (saying(b"nonsense\r\n\r\n"), GET),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), GET),
        (saying(b"HTTP/1.1 200"), GET),
        (saying(LONG), GET),
        (saying(LONG, stay=True), GET),
        (saying(b"", stay=True), GET),
        (saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"), GET),
    ],
    ids=["no answer", "nonsense", "bad length", "half a head", "half a body", "stalled", "silent", "half a chunk"],
)
@trio_test(timeout_s=8)
async def test_each_of_these_is_one_error(lane: str, script: Script, asked: bytes) -> None:
    async with proxy(lane, script, setup=Setup(pool_timeouts=TIMES)) as lb:
        lb.publish(0, reports_errors=True)
        client = await lb.client()
        await client.send(asked)
        await client.more()
        await wait_until(lambda: lb.records)
        assert errors_of(lb) == 1


@pytest.mark.parametrize("lane", LANES)
@trio_test(timeout_s=8)
async def test_a_refused_connection_is_one_error(lane: str) -> None:
    async with proxy(lane, answering(OK), answering(OK), setup=Setup(balance="round_robin")) as lb:
        lb.backends[0].refuse()
        lb.publish(0, 1, reports_errors=True)
        for _ in range(3):
            assert (await lb.ask(GET)).status == 200
        assert errors_of(lb) == 1


@pytest.mark.parametrize("lane", LANES)
@trio_test(timeout_s=8)
async def test_what_a_backend_answers_or_a_client_does_is_none(lane: str) -> None:
    async def failing(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    async with proxy(lane, failing, setup=Setup(pool_timeouts=TIMES)) as lb:
        lb.publish(0, reports_errors=True)
        for _ in range(3):  # 500 is an answer, and the end of a kept connection is nobody's fault
            assert (await lb.ask(GET)).status == 500
        lb.backends[0].script = saying(b"", stay=True)
        client = await lb.client()
        await client.send(get(b"/"))
        await wait_until(lambda: lb.leases)
        client.close()
        await wait_until(lambda: not lb.leases)
        assert errors_of(lb) == 0
