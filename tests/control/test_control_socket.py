"""The control socket as a file: stale ones replaced, live ones respected, others left alone."""

import os
import socket
import stat

import pytest

from lbproxy.control.control_socket import ControlSocket, ControlSocketTaken, peer


def test_only_its_owner_may_connect_and_nothing_is_left_in_the_end(tmp_path):
    path = tmp_path / "lb.sock"
    control = ControlSocket(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    control.close()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_was_missing_is_made_private_and_goes_again(tmp_path):
    control = ControlSocket(str(tmp_path / "run" / "lb.sock"))
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    control.close()
    assert list(tmp_path.iterdir()) == []


def test_a_stale_socket_is_replaced(tmp_path):
    path = str(tmp_path / "lb.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    control = ControlSocket(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    control.close()


def test_a_live_socket_refuses_with_the_pid_that_holds_it(tmp_path):
    path = str(tmp_path / "lb.sock")
    control = ControlSocket(path)
    with pytest.raises(ControlSocketTaken, match=rf"another lbproxy \(pid {os.getpid()}\) holds"):
        ControlSocket(path)
    assert os.path.exists(path)
    control.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "lb.sock"
    path.write_text("precious")
    with pytest.raises(ControlSocketTaken, match="not a socket"):
        ControlSocket(str(path))
    assert path.read_text() == "precious"


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ControlSocketTaken, match="cannot use the control socket"):
        ControlSocket(str(tmp_path / "file" / "lb.sock"))


def test_a_successor_s_socket_is_not_removed(tmp_path):
    path = str(tmp_path / "lb.sock")
    first = ControlSocket(path)
    os.unlink(path)
    second = ControlSocket(path)
    first.close()
    assert os.path.exists(path)
    second.close()


def test_the_peer_is_known_by_pid_and_user():
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer(one) == (os.getpid(), os.getuid())
