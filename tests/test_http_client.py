"""One request to real servers, plain and with TLS. What an answer may look like: tests/supervise/test_probe.py."""

import ssl
from pathlib import Path

import pytest
import trio
from support.certificates import pem_file
from support.receiver import receiver
from support.trio_test import trio_test

from lbproxy import http_client
from lbproxy.address import Address
from lbproxy.http_client import Answer, Ask, NoAnswer, ask, connect, reason_of
from lbproxy.settings import TargetTls
from lbproxy.tls.contexts import client_context

POST = Ask("POST", "/hook?a", (("Host", "h"), ("X-A", "b")), b"hello")


async def send(address: Address, *, secure: bool = False, tls: TargetTls | None = None) -> Answer:
    with trio.fail_after(10):
        async with await connect(address, secure=secure, tls=tls) as stream:
            return await ask(stream, POST, most_bytes=100, body_s=1.0)


def test_a_request_is_framed_by_its_length() -> None:
    assert POST.encoded() == (
        b"POST /hook?a HTTP/1.1\r\nHost: h\r\nX-A: b\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    )
    assert b"Content-Length: 0\r\n" in Ask("POST", "/", ()).encoded()
    assert Ask("GET", "/", ()).encoded() == b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"


@trio_test(timeout_s=20)
async def test_a_server_gets_the_request_and_its_status_comes_back() -> None:
    with receiver() as server:
        server.answers = [202]
        assert await send(Address("127.0.0.1", server.port)) == Answer(202, b"")
        assert [(one.path, one.body) for one in server.got] == [("/hook?a", b"hello")]


@trio_test(timeout_s=20)
async def test_the_certificate_must_be_trusted_and_for_that_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pem_file(tmp_path, "127.0.0.1")
    with receiver(tls=file) as server:
        address = Address("127.0.0.1", server.port)
        with pytest.raises(NoAnswer, match=r"TLS: self.signed certificate"):
            await send(address, secure=True)

        def trusting(tls: TargetTls, protocol: str) -> ssl.SSLContext:
            return client_context(str(file))

        monkeypatch.setattr(http_client, "target_context", trusting)
        assert (await send(address, secure=True)).status == 204
        with pytest.raises(NoAnswer, match="TLS: the server does not agree on h2"):
            await connect(address, secure=True, protocol="h2")
        with pytest.raises(NoAnswer, match="TLS: Hostname mismatch"):
            await send(Address("localhost", server.port), secure=True)
        other = TargetTls(server_name="127.0.0.1")
        assert (await send(Address("localhost", server.port, secure=True), tls=other)).status == 204
        with pytest.raises((NoAnswer, trio.BrokenResourceError)):
            await send(address)
    with receiver() as server, pytest.raises(NoAnswer, match="TLS: "):
        await send(Address("127.0.0.1", server.port), secure=True)


def test_reasons_are_words() -> None:
    assert reason_of(ConnectionRefusedError(111, "x")) == "connection refused"
    assert reason_of(None) == "connection lost"
    assert reason_of(NoAnswer("closed")) == "closed"
