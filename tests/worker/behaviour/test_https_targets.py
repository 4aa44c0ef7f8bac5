"""Backends behind TLS, in both lanes: verified, kept, resumed; and what a client sees when that fails."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from support.certificates import pem_file
from support.peer import Peer
from support.proxy import GET, OK, Proxy, Script, Setup, answering, get, lanes, post, proxy, wait_until
from support.tls_door import Door, server_context, tls_door
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.link.messages import Unreachable
from lbproxy.settings import PoolTimeouts, TargetTls

NAME = "app.internal"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pem_file(tmp_path_factory.mktemp("tls"), NAME)


def trusting(pem: Path, **more: object) -> TargetTls:
    return TargetTls(ca=str(pem), authorities=pem.read_text(), **more)  # type: ignore[arg-type]


@asynccontextmanager
async def behind_tls(
    lane: str,
    script: Script,
    pem: Path,
    setup: Setup | None = None,
    *,
    tls: TargetTls | None = None,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> AsyncIterator[tuple[Proxy, Door]]:
    """`tls`: of the pool; without, the certificate is trusted."""
    async with proxy(lane, script, setup=setup) as lb:
        plain = lb.backends[0].address
        async with tls_door(plain, server_context(pem, version)) as door:
            lb.backends[0].address = replace(door.address, name=NAME)
            lb.backends[0].tls = tls or trusting(pem)
            lb.publish(0)
            yield lb, door
            lb.context.backends.close()
            await lb.settle()
    # settle() has closed everything; the door goes first


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@lanes
@VERSIONS
@trio_test(timeout_s=8)
async def test_requests_of_every_kind_pass_and_share_a_kept_connection(
    lane: str, pem: Path, version: ssl.TLSVersion
) -> None:
    body = bytes(300_000)
    answers = (OK, b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + body, OK, OK)
    async with behind_tls(lane, answering(*answers), pem, version=version) as (lb, door):
        client = await lb.client()
        await client.send(GET)
        assert (await client.answer()).body == b"hello"
        await client.send(get(b"/large"))
        assert (await client.answer()).body == body
        for request in (post(b"x" * 200_000), post(b"short"), GET):
            await client.send(request)
            assert (await client.answer()).status == 200
        assert b"x" * 200_000 in lb.backends[0].received
        assert door.names[0] == NAME
        assert len(lb.backends[0].peers) == 2, "the first POST of a client takes a fresh connection"
        if lane == "express":
            assert lb.lanes.handed_over == {"secure": 2} or lb.lanes.handed_over.get("secure") == 2
            assert lb.router.tally.served >= 3


@lanes
@VERSIONS
@trio_test(timeout_s=8)
async def test_the_next_connection_resumes_the_session(lane: str, pem: Path, version: ssl.TLSVersion) -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with behind_tls(lane, answering(closing), pem, version=version) as (lb, door):
        for _ in range(3):
            assert (await lb.ask(GET)).status == 200
        assert door.resumed == [False, True, True]


WRONG = {
    "an unknown authority": lambda pem: TargetTls(),
    "another name": lambda pem: trusting(pem, server_name="other.internal"),
    "authorities that are none": lambda pem: TargetTls(ca="/etc/ca.pem", authorities="-----BEGIN nothing"),
}


@lanes
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@trio_test(timeout_s=8)
async def test_a_certificate_that_is_not_good_is_a_502_with_the_reason(lane: str, pem: Path, wrong) -> None:
    async with behind_tls(lane, answering(OK), pem, tls=wrong(pem)) as (lb, _):
        for request in (GET, post(b"short")):
            answer = await lb.ask(request)
            assert answer.status == 502
            assert answer.get(b"proxy-status") == b"edge; error=tls_certificate_error"
            reason = lb.records[-1].reason
            assert reason is not None
            assert "certificate not accepted" in reason or "/etc/ca.pem cannot be used" in reason
        assert not lb.backends[0].peers
        assert all(isinstance(one, Unreachable) for one in lb.posted)
        assert lb.posted, "control counts it like a failed probe"
        assert lb.leases == 0


@lanes
@trio_test(timeout_s=8)
async def test_a_request_goes_elsewhere_when_a_certificate_is_not_good_also_one_that_may_not_be_replayed(
    lane: str, pem: Path
) -> None:
    async with (
        proxy(lane, answering(OK), answering(OK)) as lb,
        tls_door(lb.backends[0].address, server_context(pem)) as door,
    ):
        lb.backends[0].address = door.address
        lb.publish(0, 1, balance="round_robin")
        for _ in range(6):
            assert (await lb.ask(post(b"short"))).status == 200
        await wait_until(lambda: door.broken >= 2)
        assert not lb.backends[0].peers
        lb.context.backends.close()
        await lb.settle()


@pytest.mark.parametrize("mode", ["http", "tcp"])
@pytest.mark.parametrize("balance", ["round_robin", "least_conn"])
@trio_test(timeout_s=8)
async def test_fresh_connections_are_spread_as_the_balance_says(pem: Path, balance: str, mode: str) -> None:
    """Each is claimed twice: the lane on the reactor leaves the handshake to a task."""
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with (
        proxy("express", answering(closing), answering(closing), setup=Setup(mode=mode)) as lb,
        tls_door(lb.backends[0].address, server_context(pem)) as one,
        tls_door(lb.backends[1].address, server_context(pem)) as two,
    ):
        for backend, door in zip(lb.backends, (one, two), strict=True):
            backend.address, backend.tls = door.address, TargetTls(verify=False)
        lb.publish(0, 1, balance=balance)
        for _ in range(8):
            client = await lb.client()
            await client.send(GET)
            assert (await client.answer()).status == 200
            client.close()
            await wait_until(lambda: not lb.leases)
        assert min(len(one.resumed), len(two.resumed)) >= 3, "every sixteen rounds the turns are shifted by one"
        lb.context.backends.close()
        await lb.settle()


@lanes
@trio_test(timeout_s=8)
async def test_without_verification_any_certificate_will_do(lane: str, pem: Path) -> None:
    async with behind_tls(lane, answering(OK), pem, tls=TargetTls(verify=False)) as (lb, _):
        assert (await lb.ask(GET)).status == 200


@lanes
@trio_test(timeout_s=8)
async def test_a_backend_that_does_not_speak_tls_is_a_502_and_one_that_says_nothing_is_passed_over(lane: str) -> None:
    async def nonsense(peer: Peer) -> None:
        await peer.more()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def silent(peer: Peer) -> None:
        await peer.wait_ended()

    setup = Setup(pool_timeouts=PoolTimeouts(connect_s=0.2))
    async with proxy(lane, nonsense, silent, answering(OK), setup=setup) as lb:
        for backend in lb.backends[:2]:
            backend.address = replace(backend.address, secure=True)
        lb.publish(0)
        answer = await lb.ask(GET)
        assert (answer.status, answer.get(b"proxy-status")) == (502, b"edge; error=tls_protocol_error")
        lb.publish(1)
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.posted and "TLS handshake within 0.2s" in str(lb.posted[-1]))
        lb.publish(2)
        assert (await client.answer()).status == 200


@lanes
@trio_test(timeout_s=8)
async def test_an_upgrade_and_its_bytes_pass_through_tls(lane: str, pem: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi")
        await peer.wait_ended()

    async with behind_tls(lane, script, pem) as (lb, _):
        client = await lb.client()
        await client.send(get(b"/", b"Connection: Upgrade", b"Upgrade: websocket") + b"\x81\x82\0\0\0\0yo")
        await client.until(b"\r\n\r\n")
        assert await client.exactly(4) == b"\x81\x02hi"
        await wait_until(lambda: lb.backends[0].received.endswith(b"\x81\x82\0\0\0\0yo"))
        assert lb.count(Counter.WEBSOCKET) == 1


@pytest.mark.parametrize("tls", ["good", "bad"])
@trio_test(timeout_s=8)
async def test_tcp_mode_relays_to_a_backend_behind_tls(pem: Path, tls: str) -> None:
    async def echo(peer: Peer) -> None:
        while await peer.more():
            await peer.send(peer._take(len(peer.buffer)))

    setup = Setup(mode="tcp")
    async with behind_tls("express", echo, pem, setup, tls=TargetTls() if tls == "bad" else None) as (lb, _):
        client = await lb.client()
        await client.send(b"ping" * 50_000)
        if tls == "bad":
            (record,) = await lb.wait_records(1)
            assert (record.status, record.error) == (502, "tls_certificate_error")
            return
        assert await client.exactly(200_000) == b"ping" * 50_000
        assert lb.count(Counter.TCP) == 1


@lanes
@trio_test(timeout_s=8)
async def test_a_kept_connection_that_its_backend_has_ended_is_not_used_again(lane: str, pem: Path) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async with behind_tls(lane, once, pem) as (lb, door):
        for number in range(1, 4):
            assert (await lb.ask(GET)).status == 200
            await wait_until(lambda: not any(lb.context.backends._idle.values()))
            assert len(door.resumed) == number
        await trio.lowlevel.checkpoint()
