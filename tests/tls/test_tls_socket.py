import os
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from support.certificates import pem_file

from lbproxy.tls.contexts import Pair, ServerContexts, ServerRules, client_context
from lbproxy.tls.tls_socket import RECORD_BYTES, HandshakeFailed, TlsSocket, aside

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
VERSIONS = ("1.2", "1.3")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pem_file(tmp_path_factory.mktemp("tls"), "a.example")


def contexts(pem: Path, version: str = "1.3") -> Contexts:
    fd = os.open(pem, os.O_RDONLY)
    try:
        server = ServerContexts([Pair(fd, fd)])
        server.follow(ServerRules(min_version=version))
    finally:
        os.close(fd)
    client = client_context(str(pem), protocols=["http/1.1"])
    client.maximum_version = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
    return server.first, client


@contextmanager
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    with closing(near), closing(far):
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def shake(*ends: TlsSocket) -> None:
    for _ in range(10):
        waits = [end.handshake() for end in ends]
        if not any(waits):
            return
    raise AssertionError("the handshake does not end")


@contextmanager
def pair(both: Contexts, session: ssl.SSLSession | None = None) -> Iterator[tuple[TlsSocket, TlsSocket]]:
    """A server's and a client's end, after the handshake."""
    with tcp() as (near, far):
        server, client = TlsSocket.server(far, both[0]), TlsSocket.client(near, both[1], "a.example", session)
        with closing(server), closing(client):
            shake(server, client)
            yield server, client


def take(sock: TlsSocket, size: int) -> bytes:
    """As recv, which is called again when the descriptor is ready: a record of the protocol's own may come first."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    while True:
        try:
            return sock.recv(size)
        except BlockingIOError:
            assert poll.poll(5000), "nothing comes"


def blocks(call: Callable[[], object]) -> bool:
    try:
        call()
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_go_both_ways(pem: Path, version: str) -> None:
    with pair(contexts(pem, version)) as (server, client):
        assert (server.protocol, client.protocol, server.tls_version) == ("http/1.1", "http/1.1", f"TLSv{version}")
        assert blocks(lambda: server.recv(100)), "nothing is there: as a plain socket says it"
        assert client.send(b"hello") == 5
        assert take(server, 100) == b"hello"
        assert server.send(b"answer") == 6
        assert take(client, 100) == b"answer"
        assert server.send(b"") == 0


def test_no_byte_of_a_record_is_left_where_no_descriptor_tells_of_it(pem: Path) -> None:
    with pair(contexts(pem)) as (server, client):
        client.send(b"x" * 5000)
        assert len(take(server, 479)) == 5000, "more than was asked for"
        client.send(b"y" * 479)
        assert len(take(server, 479)) == 479
        assert blocks(lambda: server.recv(479))


def test_a_large_read_takes_several_records(pem: Path) -> None:
    with pair(contexts(pem)) as (server, client):
        assert client.send(b"x" * 40_000) == 40_000
        assert len(take(server, 65536)) == 40_000
        client.send(b"last")
        client.shutdown(socket.SHUT_WR)
        assert take(server, 65536) == b"last", "the end is another read's"
        assert take(server, 65536) == b""


def fill(sock: TlsSocket, data: bytes) -> int:
    """How many bytes are taken until the kernel has no more room."""
    taken = 0
    with suppress(BlockingIOError):
        while taken < len(data):
            taken += sock.send(data[taken:])
    assert taken < len(data), "the buffers have no end"
    return taken


@pytest.mark.parametrize("step", [100, 5000, RECORD_BYTES, 40_000, 65536])
def test_a_blocked_send_goes_on_with_the_bytes_that_are_left(pem: Path, step: int) -> None:
    with pair(contexts(pem)) as (server, client):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        data = os.urandom(step) * (1_000_000 // step)
        sent, got = 0, bytearray()
        times_blocked = 0
        while len(got) < len(data):
            try:
                while sent < len(data):
                    sent += server.send(bytearray(data[sent : sent + step]))  # another object each time
            except BlockingIOError:
                times_blocked += 1
            with suppress(BlockingIOError):
                got += client.recv(65536)
        assert times_blocked
        assert bytes(got) == data


def test_a_blocked_send_may_be_repeated_with_more_behind_it(pem: Path) -> None:
    """A lane adds to what waits."""
    with pair(contexts(pem)) as (server, client):
        data = os.urandom(1000) * 8_000
        taken = fill(server, data[:7_000_000])
        more = data[taken:]
        got = bytearray()
        while len(got) < len(data):
            with suppress(BlockingIOError):
                got += client.recv(65536)
            if more:
                with suppress(BlockingIOError):
                    more = more[server.send(more) :]
        assert bytes(got) == data


@pytest.mark.parametrize("version", VERSIONS)
def test_a_half_closed_end_is_still_read(pem: Path, version: str) -> None:
    """With bytes of the peer on the way: they must not be lost to the close_notify."""
    with pair(contexts(pem, version)) as (server, client):
        client.send(b"more")
        server.shutdown(socket.SHUT_WR)
        assert take(client, 100) == b""
        assert take(server, 100) == b"more"
        if version == "1.3":
            client.send(b"still more")
            assert take(server, 100) == b"still more"
        client.shutdown(socket.SHUT_WR)
        assert take(server, 100) == b"", "the peer's close_notify, after ours"


def test_a_close_says_goodbye_and_a_reset_does_not(pem: Path) -> None:
    with pair(contexts(pem)) as (server, client):
        server.close()
        assert take(client, 100) == b""
    with pair(contexts(pem)) as (server, client):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        with pytest.raises(ConnectionResetError):
            take(client, 100)


def test_an_end_without_close_notify_is_no_end(pem: Path) -> None:
    with pair(contexts(pem)) as (server, client):
        client.send(b"a part")
        socket.socket.shutdown(client, socket.SHUT_WR)
        assert take(server, 65536) == b"a part"
        with pytest.raises(ConnectionResetError, match="without close_notify"):
            take(server, 65536)


def test_garbage_is_a_broken_connection(pem: Path) -> None:
    with pair(contexts(pem)) as (server, client):
        socket.socket.send(client, b"\x17\x03\x03\x00\x20" + b"?" * 32)
        with pytest.raises(ConnectionResetError, match="TLS: "):
            take(server, 100)
        server.close()


def test_epoll_knows_the_socket_after_a_half_close(pem: Path) -> None:
    """Its number stood for another socket for a moment."""
    with pair(contexts(pem)) as (server, client), closing(select.epoll()) as epoll:
        epoll.register(server.fileno(), select.EPOLLIN)
        aside()
        before = set(os.listdir("/proc/self/fd"))
        server.shutdown(socket.SHUT_WR)
        assert set(os.listdir("/proc/self/fd")) == before
        assert epoll.poll(0) == []
        client.send(b"x")
        assert epoll.poll(1) == [(server.fileno(), select.EPOLLIN)]
        epoll.modify(server.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
        epoll.unregister(server.fileno())
        assert not os.get_inheritable(server.fileno())


def test_a_peer_that_is_no_tls_fails_the_handshake(pem: Path) -> None:
    with tcp() as (near, far):
        near.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        with closing(TlsSocket.server(far, contexts(pem)[0])) as server, pytest.raises(HandshakeFailed) as failed:
            server.handshake()
        assert str(failed.value) == "wrong version number"


def test_a_client_that_does_not_know_the_authority_is_told_of(pem: Path) -> None:
    both = contexts(pem)[0], client_context()
    with pytest.raises(HandshakeFailed, match="self-signed certificate"), pair(both):
        pass


def test_a_server_name_that_is_none_is_an_error_in_words(pem: Path) -> None:
    with tcp() as (near, _), pytest.raises(HandshakeFailed):
        TlsSocket.client(near, contexts(pem)[1], "")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed(pem: Path, version: str) -> None:
    both = contexts(pem, version)
    with pair(both) as (server, client):
        server.send(b"x")
        take(client, 10)
        session = client.session
        assert not server.is_resumed
    assert session is not None
    with pair(both, session) as (server, client):
        assert server.is_resumed
        assert client.is_resumed


def test_a_session_is_good_for_its_own_listener_only(pem: Path) -> None:
    both = contexts(pem)
    with pair(both) as (server, client):
        server.send(b"x")
        take(client, 10)
        session = client.session
    with pair((contexts(pem)[0], both[1]), session) as (server, _):
        assert not server.is_resumed


def test_where_the_kernel_encrypts_nothing_openssl_goes_on_without_it(
    pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it does, this test is of that."""
    enable_ktls = 1 << 3  # SSL_OP_ENABLE_KTLS; Python 3.12 has a name for it
    monkeypatch.setattr("lbproxy.tls.contexts.KERNEL_TLS", enable_ktls)
    both = contexts(pem)
    assert all(context.options & enable_ktls for context in both)
    with pair(both) as (server, client):
        data = os.urandom(60_000)
        assert server.send(data) == len(data)
        got = b""
        while len(got) < len(data):
            got += take(client, 65536)
        assert got == data
        client.send(b"more")
        server.shutdown(socket.SHUT_WR)
        assert take(client, 100) == b""
        assert take(server, 100) == b"more"


def test_a_descriptor_from_accept_becomes_a_tls_socket_without_a_plain_one(pem: Path) -> None:
    server_context, client_context_ = contexts(pem)
    with tcp() as (near, far):
        accepted = TlsSocket.accepted(int(far.family), socket.SOCK_STREAM, 0, far.detach())
        with closing(TlsSocket.client(near, client_context_, "a.example")) as client, closing(accepted):
            accepted.setblocking(False)
            server = TlsSocket.server(accepted, server_context)
            assert server is accepted
            shake(server, client)
            server.send(b"hello")
            assert take(client, 5) == b"hello"


def test_a_descriptor_from_accept_can_be_closed_before_it_speaks_tls() -> None:
    with tcp() as (near, far):
        TlsSocket.accepted(int(far.family), socket.SOCK_STREAM, 0, far.detach()).close()
        select.select([near], [], [], 5)
        assert near.recv(1) == b""
