"""The TLS handshake as a stage of the front door; all lanes behind it are in tests/worker/behaviour (lane "tls")."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from support.certificates import pem_file
from support.peer import Peer, connect
from support.proxy import GET, OK, Proxy, Setup, answering, proxy, wait_until
from support.tls_peer import TlsPeerSocket, client_context, pem, server_contexts
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import ListenerLimits, ListenerTimeouts
from lbproxy.telemetry.events import TlsFailed
from lbproxy.tls.contexts import Pair, ServerContexts, ServerRules
from lbproxy.worker.front.accept import TOLD_PER_S

LISTENER_CELL = 1


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pem_file(tmp_path_factory.mktemp("tls"), "b.example")


@contextmanager
def opened(*paths: Path) -> Iterator[list[int]]:
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    yield fds
    for fd in fds:
        os.close(fd)


async def plain(lb: Proxy) -> Peer:
    """A connection without TLS."""
    peer = await connect(lb.address)
    lb._clients.append(peer)
    return peer


def handshakes(lb: Proxy) -> dict[tuple[str, str], int]:
    counted = lb.router.tally.take().incidents
    return {(one.labels[1], one.labels[2]): one.number for one in counted if one.name == "tls_handshake"}


def failures(lb: Proxy) -> list[str]:
    return [event.why for event in lb.events if isinstance(event, TlsFailed)]


def hello(context: ssl.SSLContext | None = None) -> bytes:
    out = ssl.MemoryBIO()
    tls = (context or client_context()).wrap_bio(ssl.MemoryBIO(), out, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


@pytest.mark.parametrize("said", [GET, b"DELETE /x HTTP/1.0\r\n", b"QUERY / HTTP/1.1\r\nHost: a\r\n"])
@trio_test(timeout_s=8)
async def test_plain_http_gets_a_sentence(said: bytes) -> None:
    async with proxy("tls", answering(OK)) as lb:
        client = await plain(lb)
        await client.send(said)
        answer = await client.response()
        assert (answer.status, answer.get(b"connection")) == (400, b"close")
        assert b"this port speaks HTTPS" in answer.body
        assert await client.rest() == b""
        assert not client.is_reset
        assert failures(lb) == ["plain HTTP where TLS is expected"]
        assert handshakes(lb) == {("failed", ""): 1}


@trio_test(timeout_s=8)
async def test_a_hello_may_come_byte_by_byte() -> None:
    async with proxy("tls", answering(OK)) as lb:
        client = await plain(lb)
        data = hello()
        for at in range(len(data)):
            await client.send(data[at : at + 1])
            if at % 16 == 0:
                await trio.testing.wait_all_tasks_blocked()
        assert await client.exactly(3) == b"\x16\x03\x03", "a ServerHello"
        assert len(lb.acceptor.admitting) == 1


@trio_test(timeout_s=8)
async def test_what_waits_for_the_rest_of_a_hello_costs_nothing() -> None:
    async with proxy("tls", answering(OK)) as lb:
        client = await plain(lb)
        await client.send(hello()[:100])
        await wait_until(lambda: lb.acceptor.admitting and lb.acceptor.admitting[0]._seen == 100)
        calls = 0
        (handshake,) = lb.acceptor.admitting
        handled = type(handshake).on_ready

        def count(self: object, mask: int) -> None:
            nonlocal calls
            calls += 1
            handled(self, mask)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(handshake), "on_ready", count)
            await trio.sleep(0.1)
            handled(handshake, 1)  # an event of the descriptor's predecessor
            assert lb.acceptor.admitting
            assert not calls, "bytes that are only looked at must not be reported again and again"
            client.close()
            await wait_until(lambda: not lb.acceptor.admitting)
        assert handshakes(lb) == {("gone", ""): 1}
        assert failures(lb) == []


@trio_test(timeout_s=8)
async def test_a_client_without_a_protocol_of_ours_is_told_so_and_one_that_offers_none_is_served() -> None:
    async with proxy("tls", answering(OK)) as lb:
        for protocols, is_served in ((["h2", "spdy/3"], False), (["h2", "http/1.1"], True), ([], True)):
            context = ssl.create_default_context(cafile=str(pem()))
            if protocols:
                context.set_alpn_protocols(protocols)
            client = await plain(lb)
            secured = TlsPeerSocket(client.sock, context)  # type: ignore[arg-type]
            if not is_served:
                with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol|1120"):
                    await secured.handshake()
                continue
            await secured.handshake()
            assert secured.tls.selected_alpn_protocol() == ("http/1.1" if protocols else None)
            await secured.send(GET)
            assert (await secured.recv(100)).startswith(b"HTTP/1.1 200")
        assert handshakes(lb) == {("failed", ""): 1, ("ok", "TLSv1.3"): 2}


@trio_test(timeout_s=8)
async def test_nonsense_is_an_event_and_a_flood_of_it_a_few() -> None:
    async with proxy("tls", answering(OK)) as lb:
        for said in (b"SSH-2.0-OpenSSH\r\n", b"\x16\x03\x01\x00\x04\x01\x00\x00\xff", b"\x80\x2e\x01\x00\x02\x00\x15"):
            client = await plain(lb)
            await client.send(said)
            client.end()
            await client.rest()
        count = len(failures(lb))
        assert 1 <= count <= 3
        for _ in range(2 * TOLD_PER_S):
            client = await plain(lb)
            await client.send(b"\x16\x03\x01\x00\x01\x02")
            await client.rest()
        assert len(failures(lb)) <= count + TOLD_PER_S
        assert handshakes(lb).keys() <= {("failed", ""), ("gone", "")}


@trio_test(timeout_s=8)
async def test_a_handshake_has_as_long_as_a_head_and_counts_among_the_connections() -> None:
    setup = Setup(timeouts=ListenerTimeouts(header_s=0.3), limits=ListenerLimits(connections=1))
    async with proxy("tls", answering(OK), setup=setup) as lb:
        client = await plain(lb)
        await client.send(hello()[:50])
        await wait_until(lambda: lb.grid.sum(LISTENER_CELL, Counter.CONNECTIONS) == 1)
        began = trio.current_time()
        assert await client.rest() == b""
        assert 0.2 < trio.current_time() - began < 3
        assert failures(lb) == ["not complete within 0.3s"]
        assert (await lb.ask(GET)).status == 200


@trio_test(timeout_s=8)
async def test_the_name_decides_the_certificate(other: Path) -> None:
    async with proxy("tls", answering(OK)) as lb:
        with opened(pem(), other) as (first, second):
            lb.acceptor.use_certificates(
                1, ServerContexts([Pair(first, first, ("a.example",)), Pair(second, second, ("*.example",))])
            )
        for name, expected in (("a.example", "a.example"), ("x.example", "b.example"), ("x.y.example", "a.example")):
            context = ssl.create_default_context(cafile=str(pem()))
            context.load_verify_locations(other)
            context.check_hostname = False
            client = await plain(lb)
            secured = TlsPeerSocket(client.sock, context)  # type: ignore[arg-type]
            secured.tls = context.wrap_bio(secured._in, secured._out, server_hostname=name)
            await secured.handshake()
            shown = secured.tls.getpeercert()
            assert shown is not None
            assert ("DNS", expected) in shown["subjectAltName"], name


@trio_test(timeout_s=8)
async def test_new_certificates_are_for_new_connections() -> None:
    async with proxy("tls", answering(OK)) as lb:
        before = await lb.client()
        await before.send(GET)
        assert (await before.answer()).status == 200
        lb.acceptor.use_certificates(1, server_contexts())
        await before.send(GET)
        assert (await before.answer()).status == 200
        assert (await lb.ask(GET)).status == 200


@trio_test(timeout_s=8)
async def test_a_client_without_the_certificate_that_is_required_reads_the_alert() -> None:
    async with proxy("tls", answering(OK)) as lb:
        with opened(pem()) as (fd,):
            contexts = ServerContexts([Pair(fd, fd)], client_ca=fd)
        lb.acceptor.use_certificates(1, contexts)
        contexts.follow(ServerRules(client_auth="require"))
        client = await lb.client()  # in TLS 1.3 the client is through before its certificate is asked after
        await client.send(GET)
        assert not await client.more()
        assert client.is_reset
        assert failures(lb) == ["peer did not return a certificate"]
        with_certificate = ssl.create_default_context(cafile=str(pem()))
        with_certificate.load_cert_chain(pem())
        other = await plain(lb)
        secured = TlsPeerSocket(other.sock, with_certificate)  # type: ignore[arg-type]
        await secured.handshake()
        await secured.send(GET)
        assert (await secured.recv(100)).startswith(b"HTTP/1.1 200")


@trio_test(timeout_s=8)
async def test_without_a_certificate_nobody_gets_in() -> None:
    async with proxy("tls", answering(OK)) as lb:
        lb.expected_notices = 1
        lb.acceptor._contexts.clear()
        client = await plain(lb)
        assert await client.rest() == b""
        assert "there is no certificate" in lb.notices[0]


@trio_test(timeout_s=8)
async def test_a_client_in_its_handshake_may_come_in_while_the_worker_stops() -> None:
    async with proxy("tls", answering(OK)) as lb:
        slow = await plain(lb)
        await wait_until(lambda: lb.acceptor.admitting)
        lb.acceptor.leave_all()
        lb.lanes.stop(1.0)
        secured = TlsPeerSocket(slow.sock)  # type: ignore[arg-type]
        await secured.handshake()
        await secured.send(GET)
        assert (await secured.recv(100)).startswith(b"HTTP/1.1 200")
        await wait_until(lambda: not lb.acceptor.leaving)


@trio_test(timeout_s=8)
async def test_a_session_is_resumed_at_the_same_worker() -> None:
    async with proxy("tls", answering(OK)) as lb:
        context, session = client_context(), None
        for _ in range(2):
            client = await plain(lb)
            secured = TlsPeerSocket(client.sock)  # type: ignore[arg-type]
            secured.tls = context.wrap_bio(secured._in, secured._out, server_hostname="a.example", session=session)
            await secured.handshake()
            await secured.send(GET)
            await secured.recv(100)
            session = secured.tls.session
        assert secured.tls.session_reused
        assert handshakes(lb) == {("ok", "TLSv1.3"): 1, ("resumed", "TLSv1.3"): 1}


@trio_test(timeout_s=8)
async def test_records_of_any_size_are_read() -> None:
    async with proxy("tls", answering(OK)) as lb:
        client = await lb.client()
        for size in (1, 7, 16384):
            body = b"x" * 40_000
            data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            for at in range(0, 200 if size == 1 else len(data), size):
                await client.send(data[at : at + size])
            if size == 1:
                await client.send(data[200:])
            assert (await client.answer()).status == 200


@trio_test(timeout_s=8)
async def test_tcp_mode_ends_with_an_end_or_with_a_reset_as_the_client_ended() -> None:
    seen: list[bool] = []

    async def listening(peer: Peer) -> None:
        while await peer.more():
            pass
        seen.append(peer.is_reset)

    async with proxy("tls", listening, setup=Setup(mode="tcp")) as lb:
        client = await lb.client()
        await client.send(b"all of it")
        client.end()
        await wait_until(lambda: seen == [False])
        client = await lb.client()
        await client.send(b"a part of it")
        await wait_until(lambda: lb.backends[0].received.endswith(b"a part of it"))
        client.sock.plain.shutdown(socket.SHUT_WR)  # type: ignore[union-attr]
        await wait_until(lambda: seen == [False, True])
