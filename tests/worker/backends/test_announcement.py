"""What a backend is told of a client, by the sockets that there are."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.backends.announcement import announcement


@contextmanager
def accepted(listening: socket.socket, family: int, address: object) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end."""
    with listening, socket.socket(family) as client:
        client.connect(address)
        server, _ = listening.accept()
        with server:
            yield server, client


def test_the_peer_and_the_listener_with_their_ports() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    with accepted(listening, socket.AF_INET, listening.getsockname()) as (server, client):
        port, own = client.getsockname()[1], listening.getsockname()[1]
        facts = ClientFacts(b"127.0.0.1", False, b"http")
        assert announcement("v1", server, facts, facts.ip) == b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (port, own)
        # What a PROXY header announced, and what X-Forwarded-For names.
        facts = ClientFacts(b"192.0.2.7", False, b"http", port=4711)
        assert announcement("v1", server, facts, facts.ip) == b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 %d\r\n" % own
        assert announcement("v1", server, facts, b"192.0.2.8") == b"PROXY TCP4 192.0.2.8 127.0.0.1 0 %d\r\n" % own
        assert announcement("v1", server, facts, b"") == b"PROXY UNKNOWN\r\n"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_an_ipv4_client_of_a_socket_for_both_is_an_ipv4_client() -> None:
    listening = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    own = listening.getsockname()[1]
    with accepted(listening, socket.AF_INET, ("127.0.0.1", own)) as (server, client):
        facts = ClientFacts(b"127.0.0.1", False, b"http")
        port = client.getsockname()[1]
        assert announcement("v1", server, facts, facts.ip) == b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (port, own)


def test_a_client_behind_a_unix_listener_keeps_the_address_that_is_said_of_it(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    with accepted(listening, socket.AF_UNIX, str(tmp_path / "s")) as (server, _):
        facts = ClientFacts(b"", True, b"http")
        assert announcement("v1", server, facts, b"192.0.2.7") == b"PROXY TCP4 192.0.2.7 0.0.0.0 0 0\r\n"
