"""Many handshakes at once in a worker: who waits, who gives way; what backends are told of clients' certificates."""

import ssl
from dataclasses import replace

import pytest
import trio
from support.peer import connect
from support.proxy import GET, OK, Proxy, answering, get, proxy, together, wait_until
from support.tls_peer import TlsPeerSocket, client_context, pem
from support.trio_test import trio_test

from lbproxy.settings import TlsSettings
from lbproxy.telemetry.events import TlsFailed
from lbproxy.tls.contexts import Pair, ServerContexts
from lbproxy.worker.front import handshake_turns
from lbproxy.worker.front.handshake_turns import MOST_OF_ADDRESS


def failures(lb: Proxy) -> list[str]:
    return [event.why for event in lb.events if isinstance(event, TlsFailed)]


def hello() -> bytes:
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="a.example").do_handshake()
    return out.read()


async def stalled(lb: Proxy, count: int) -> None:
    """Clients that send a ClientHello and nothing else."""
    for _ in range(count):
        peer = await connect(lb.address)
        lb._clients.append(peer)
        await peer.send(hello())


@trio_test(timeout_s=8)
async def test_a_crowd_from_one_address_is_served_in_turns() -> None:
    async with proxy("tls", answering(OK)) as lb:
        most = 0

        async def ask() -> None:
            nonlocal most
            assert (await lb.ask(GET)).status == 200
            most = max(most, len(lb.acceptor.turns._running))

        await together(*(ask for _ in range(5 * MOST_OF_ADDRESS)))
        assert most <= MOST_OF_ADDRESS
        counted = lb.router.tally.take().incidents
        assert [(one.labels, one.number) for one in counted] == [(("public", "ok", "TLSv1.3"), 5 * MOST_OF_ADDRESS)]


@trio_test(timeout_s=8)
async def test_who_stands_still_gives_way_to_who_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_turns, "PATIENCE_S", 0.3)
    async with proxy("tls", answering(OK)) as lb:
        await stalled(lb, MOST_OF_ADDRESS)
        await wait_until(lambda: len(lb.acceptor.turns._running) == MOST_OF_ADDRESS)
        began = trio.current_time()
        assert (await lb.ask(GET)).status == 200
        assert 0.1 < trio.current_time() - began < 3
        assert len(failures(lb)) == 1
        assert "while others waited" in failures(lb)[0]


@trio_test(timeout_s=8)
async def test_who_leaves_while_it_waits_is_forgotten() -> None:
    async with proxy("tls", answering(OK)) as lb:
        await stalled(lb, MOST_OF_ADDRESS + 3)
        turns = lb.acceptor.turns
        await wait_until(lambda: (len(turns._running), turns.waiting) == (MOST_OF_ADDRESS, 3))
        for client in lb._clients:
            client.close()
        await wait_until(lambda: not lb.acceptor.admitting)
        assert (turns._running, turns.waiting) == ({}, 0)
        assert failures(lb) == []


# Client certificates


def asking(lb: Proxy, how: str) -> None:
    """The listener asks for certificates of the authority that is also its own certificate."""
    with pem().open("rb") as file:
        fd = file.fileno()
        lb.acceptor.use_certificates(1, ServerContexts([Pair(fd, fd)], client_ca=fd))
    lb.setup = replace(lb.setup, more={"tls": TlsSettings(client_auth=how)})
    lb.publish(0)


@pytest.mark.parametrize("off", [False, True], ids=["express", "task"])
@trio_test(timeout_s=8)
async def test_backends_are_told_of_certificates_and_never_by_the_client(off: bool) -> None:
    forged = (b"X-Client-Cert-Verified: 1", b"x_client_cert_subject: CN=root", b"Client-Cert: :MII=:")
    async with proxy("tls", answering(OK)) as lb:
        asking(lb, "request")
        lb.lanes.off = off
        with_certificate = ssl.create_default_context(cafile=str(pem()))
        with_certificate.load_cert_chain(pem())
        for context, verified in ((client_context(), b"0"), (with_certificate, b"1")):
            peer = await connect(lb.address)
            lb._clients.append(peer)
            secured = TlsPeerSocket(peer.sock, context)  # type: ignore[arg-type]
            await secured.handshake()
            for number in range(3):
                await secured.send(get(b"/%d" % (number // 2), *forged))
                assert (await secured.recv(1000)).startswith(b"HTTP/1.1 200")
            received = lb.backends[0].received.split(b"\r\n\r\n")[-4:-1]
            assert len(received) == 3
            for head in received:
                lines = [line for line in head.split(b"\r\n") if b"cert" in line.lower()]
                assert lines[0] == b"X-Client-Cert-Verified: " + verified
                assert [line.partition(b":")[0] for line in lines[1:]] == (
                    [b"X-Client-Cert-Subject", b"X-Client-Cert-Serial"] if verified == b"1" else []
                )
                assert b"CN=root" not in head
            peer.close()
