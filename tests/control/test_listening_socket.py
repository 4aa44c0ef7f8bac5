"""One socket: hidden ones let no handshake begin, and a reason is one line. test_sockets.py has them all together."""

import errno
import socket

import pytest
from support.ports import free_port

from lbproxy.address import Address
from lbproxy.control.listening_socket import drop_syns, is_stale, tcp_socket, unix_socket, why_not_bound


def test_a_socket_that_drops_syns_lets_no_handshake_begin():
    address = Address("127.0.0.1", free_port())
    with tcp_socket(address, share=False, hidden=False) as sock:
        socket.create_connection((address.host, address.port), timeout=5).close()
        drop_syns(sock)
        with pytest.raises(TimeoutError):
            socket.create_connection((address.host, address.port), timeout=0.2)


def test_a_file_that_no_program_answers_is_stale(tmp_path):
    path = str(tmp_path / "sock")
    assert not is_stale(path)
    sock = unix_socket(path)
    sock.listen()
    with pytest.raises(OSError, match="in use"):
        is_stale(path)
    sock.close()
    assert is_stale(path)
    unix_socket(path).close()


def test_a_privileged_port_says_what_it_needs():
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert "CAP_NET_BIND_SERVICE" in why_not_bound(denied, Address("127.0.0.1", 80))
    assert why_not_bound(denied, Address("127.0.0.1", 8080)) == "permission denied"
