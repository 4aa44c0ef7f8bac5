import os
import socket

import pytest
from support.ports import free_port

from lbproxy.address import Address
from lbproxy.control.admin_socket import AdminSocket
from lbproxy.control.listening_socket import BindFailed


@pytest.fixture
def admin():
    admin = AdminSocket()
    yield admin
    admin.close()


def test_no_other_program_can_share_the_port(admin):
    address = Address("127.0.0.1", free_port())
    admin.bind(address)
    assert admin.address == address
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", address.port))


def test_a_port_that_is_taken_is_one_line(admin):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BindFailed, match=rf"^\[admin\] cannot listen on 127.0.0.1:{port}: address already in use$"):
            admin.bind(Address("127.0.0.1", port))
    assert admin.sock is None


def test_an_empty_host_is_every_address(admin):
    port = free_port()
    admin.bind(Address("", port))
    socket.create_connection(("127.0.0.1", port)).close()


def test_the_file_of_a_unix_socket_goes_with_it(admin, tmp_path):
    path = str(tmp_path / "admin.sock")
    admin.bind(Address(path=path))
    assert os.path.exists(path)
    admin.close()
    admin.close()
    assert not os.path.exists(path)


def test_the_file_of_a_successor_stays(admin, tmp_path):
    path = tmp_path / "admin.sock"
    admin.bind(Address(path=str(path)))
    path.rename(tmp_path / "gone")  # keeps the inode
    path.write_text("")
    admin.close()
    assert path.exists()
