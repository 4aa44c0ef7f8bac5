import os
import socket
import stat
from pathlib import Path

import pytest

from lbproxy.config.user import user_of
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
