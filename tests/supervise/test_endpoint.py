import os
import socket
import stat
from pathlib import Path

import pytest

from lbproxy.config.user import user_of
from lbproxy.privileges import Identity
from lbproxy.supervise.endpoint import Endpoints
from lbproxy.supervise.ports import NoFreePort, Ports


@pytest.fixture
def endpoints():
    made = Endpoints(Ports(21100, 21103))
    yield made
    made.close()


def test_a_tcp_place_is_a_port(endpoints):
    endpoint = endpoints.take("tcp", "web.3", None)
    assert endpoint.address.host == "127.0.0.1"
    assert endpoint.env == {"PORT": str(endpoint.address.port), "HOST": "127.0.0.1"}
    assert endpoint.values == {"port": str(endpoint.address.port), "host": "127.0.0.1"}


def test_a_port_comes_back(endpoints):
    for bind in ("tcp", "fd"):
        taken = [endpoints.take(bind, "web.3", None) for _ in range(4)]
        with pytest.raises(NoFreePort):
            endpoints.take(bind, "web.3", None)
        for endpoint in taken:
            endpoints.give_back(endpoint)


def test_a_unix_place_is_a_short_path_in_a_private_directory(endpoints):
    endpoint = endpoints.take("unix", "web.3", None)
    path = Path(endpoint.address.path)
    assert path.name == "web.3"
    assert len(str(path)) < 60
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert endpoint.env == {"LBPROXY_SOCKET": str(path)}
    other = endpoints.take("unix", "web.3", None)
    assert other.address.path != endpoint.address.path


def test_a_long_name_is_cut_so_that_the_path_fits(endpoints):
    endpoint = endpoints.take("unix", "p" * 200 + ".1", None)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(endpoint.address.path)


def test_sockets_and_their_directories_go_away(endpoints):
    endpoint = endpoints.take("unix", "web.3", None)
    kept = endpoints.take("unix", "web.3", None)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(endpoint.address.path)
    endpoints.give_back(endpoint)
    assert not os.path.exists(os.path.dirname(endpoint.address.path))
    base = Path(kept.address.path).parent.parent
    assert base.exists()
    endpoints.close()
    assert not base.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_another_user_owns_its_directory_and_can_reach_it(endpoints):
    user = user_of("daemon")
    endpoint = endpoints.take("unix", "web.3", user)
    room = Path(endpoint.address.path).parent
    assert room.stat().st_uid == user.uid
    for above in (room.parent, *room.parent.parents):
        assert above.stat().st_mode & stat.S_IXOTH


def test_an_inherited_socket_listens_already_until_we_close_our_copy(endpoints):
    endpoint = endpoints.take("fd", "web.3", None)
    assert endpoint.values == {"fd": "3"}
    assert endpoint.env == {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    where = (endpoint.address.host, endpoint.address.port)
    socket.create_connection(where).close()
    endpoint.close_listener()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has workers of another user")
def test_workers_of_another_user_reach_the_socket_of_a_backend_and_nobody_else_does():
    made = Endpoints(Ports(21100, 21103), Identity(33, 34))
    endpoint = made.take("unix", "web.3", user_of("nobody"))
    path = Path(endpoint.address.path)
    found = path.parent.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o710, user_of("nobody").uid, 34)
    endpoint.admit_workers()  # the socket is not there yet
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o755)
        endpoint.admit_workers()
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
    same = made.take("unix", "web.4", user_of("33:33"))
    assert stat.S_IMODE(Path(same.directory).stat().st_mode) == 0o700
    made.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has workers of another user")
def test_no_backend_gets_rights_to_another_file_by_way_of_its_socket(tmp_path):
    made = Endpoints(Ports(21100, 21103), Identity(33, 34))
    endpoint = made.take("unix", "web.3", user_of("nobody"))
    path, secret = Path(endpoint.address.path), tmp_path / "secret"
    secret.touch(mode=0o600)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "other"))
        (tmp_path / "other").chmod(0o700)
        for target in (secret, tmp_path / "other"):
            path.symlink_to(target)
            endpoint.admit_workers()
            path.unlink()
    os.link(secret, path)
    endpoint.admit_workers()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o700
    made.close()
