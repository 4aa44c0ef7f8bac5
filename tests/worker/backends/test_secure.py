"""Connections over TLS as the pool of idle connections sees them; behaviour/test_https_targets.py has the rest."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from support.certificates import pem_file
from support.proxy import wait_until
from support.tls_door import server_context
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.model import BackendId, BackendView
from lbproxy.settings import TargetTls
from lbproxy.worker.backends import secure
from lbproxy.worker.backends.connections import ConnectFailed, ConnectTimedOut
from lbproxy.worker.backends.secure import SecureConnection, SecureConnections, Untrusted


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pem_file(tmp_path_factory.mktemp("tls"), "127.0.0.1")


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[tuple[BackendView, list[socket.socket]]]:
    """A server in a thread; `context`: None for one that never says anything."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                if context is None:
                    accepted.append(sock)
                    continue
                with suppress(OSError):  # the client has left in the handshake
                    accepted.append(context.wrap_socket(sock, server_side=True))

        thread = threading.Thread(target=accept)
        thread.start()
        address = Address("127.0.0.1", server.getsockname()[1], secure=True)
        try:
            yield BackendView(BackendId("web", 1, 1), address, 1), accepted
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for sock in accepted:
                sock.close()


async def arrived(connection: SecureConnection) -> None:
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(connection.sock)


@trio_test(timeout_s=10)
async def test_a_ticket_that_comes_late_does_not_end_an_idle_connection_and_unasked_bytes_do(pem: Path) -> None:
    rules = TargetTls(ca=str(pem), authorities=pem.read_text())
    with serving(server_context(pem)) as (view, accepted):
        view = replace(view, tls=rules)
        connection = await SecureConnections().connect(view, 5.0)
        await arrived(connection)  # TLS 1.3 sends its tickets behind the handshake
        assert connection.is_silent()
        await wait_until(lambda: accepted)  # a client's handshake may be over before its server's
        accepted[0].sendall(b"unasked")
        await arrived(connection)
        assert not connection.is_silent()
        connection.close()
        other = await SecureConnections().connect(view, 5.0)
        assert other.is_silent()
        await wait_until(lambda: len(accepted) == 2)
        accepted[1].shutdown(socket.SHUT_RDWR)
        await arrived(other)
        assert not other.is_silent()
        other.close()


@trio_test(timeout_s=10)
async def test_what_was_not_verified_is_never_handed_out(pem: Path) -> None:
    secure = SecureConnections()
    with serving(server_context(pem)) as (view, _):
        with pytest.raises(Untrusted, match=r"127\.0\.0\.1:.*certificate not accepted: self.signed") as caught:
            await secure.connect(view, 5.0)
        assert caught.value.token == "tls_certificate_error"


@trio_test(timeout_s=10)
async def test_a_handshake_has_its_time_and_leaves_nothing(pem: Path) -> None:
    with serving(None) as (view, _), pytest.raises(ConnectFailed, match=r"TLS handshake within 0\.1s"):
        await SecureConnections().connect(view, 0.1)


@trio_test(timeout_s=10)
async def test_a_connection_that_nobody_takes_in_time_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without TLS: the accept queue of a backend that lives may be full."""

    async def full(address: Address) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(secure, "open_socket", full)
    with serving(None) as (view, _), pytest.raises(ConnectTimedOut, match=r"accept a connection within 0\.1s"):
        await SecureConnections().connect(view, 0.1)
