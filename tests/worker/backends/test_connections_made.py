"""Connecting without waiting: a connection stands at once, is waited for, or has failed."""

import errno
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lbproxy.address import Address
from lbproxy.worker.backends.connections import EPHEMERAL_FROM, ConnectFailed, begin_connect, finish_connect


def test_a_connection_to_itself_is_none() -> None:
    """On a port of the ephemeral range a connect may meet itself."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = Address(*sock.getsockname())
        sock.connect((address.host, address.port))
        with pytest.raises(ConnectFailed, match=errno.errorcode[errno.ECONNREFUSED]):
            finish_connect(sock, address)


@pytest.mark.parametrize("address", [Address("127.0.0.1", EPHEMERAL_FROM - 1), Address(path="/run/app.sock")])
def test_only_a_connection_to_the_ephemeral_range_can_have_met_itself(address: Address) -> None:
    connected: Any = SimpleNamespace(send=len)  # it cannot be asked for its name
    assert finish_connect(connected, address)


def test_one_that_does_not_stand_yet_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = Address(*server.getsockname())
        made = [begin_connect(address) for _ in range(4)]
        stands = []
        for sock in made:
            assert sock is not None
            stands.append(finish_connect(sock, address))
            sock.close()
        assert stands[0]
        assert not stands[-1]


def test_one_to_a_port_where_nobody_listens_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(*server.getsockname())
    sock = begin_connect(address)
    assert sock is not None
    with sock, pytest.raises(ConnectFailed, match=f"{address}: ECONNREFUSED"):
        finish_connect(sock, address)


def test_one_that_a_backend_has_reset_already_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(*server.getsockname())
        sock = begin_connect(address)
        assert sock is not None
        with sock:
            accepted = server.accept()[0]
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            accepted.close()
            with pytest.raises(ConnectFailed):
                finish_connect(sock, address)


def test_a_unix_socket_stands_at_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "app.sock"))
        server.listen()
        address = Address(path=server.getsockname())
        sock = begin_connect(address)
        assert sock is not None
        with sock:
            assert finish_connect(sock, address)
