import os
import socket
import stat
from pathlib import Path

import pytest

from lbproxy.config.user import user_of
from lbproxy.supervise.place import LOCK, PREFIX, Places, remove_stale
from lbproxy.supervise.ports import NoFreePort, Ports


@pytest.fixture
def places():
    made = Places(Ports(21100, 21103))
    yield made
    made.close()


def test_a_tcp_place_is_a_port(places):
    place = places.take("tcp", "web.3", None)
    assert place.address.host == "127.0.0.1"
    assert place.env == {"PORT": str(place.address.port), "HOST": "127.0.0.1"}
    assert place.values == {"port": str(place.address.port), "host": "127.0.0.1"}


def test_a_port_comes_back(places):
    for bind in ("tcp", "fd"):
        taken = [places.take(bind, "web.3", None) for _ in range(4)]
        with pytest.raises(NoFreePort):
            places.take(bind, "web.3", None)
        for place in taken:
            places.give_back(place)


def test_a_unix_place_is_a_short_path_in_a_private_directory(places):
    place = places.take("unix", "web.3", None)
    path = Path(place.address.path)
    assert path.name == "web.3"
    assert len(str(path)) < 60
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert place.env == {"LBPROXY_SOCKET": str(path)}
    other = places.take("unix", "web.3", None)
    assert other.address.path != place.address.path


def test_a_long_name_is_cut_so_that_the_path_fits(places):
    place = places.take("unix", "p" * 200 + ".1", None)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place.address.path)


def test_sockets_and_their_directories_go_away(places):
    place = places.take("unix", "web.3", None)
    kept = places.take("unix", "web.3", None)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place.address.path)
    places.give_back(place)
    assert not os.path.exists(os.path.dirname(place.address.path))
    base = Path(kept.address.path).parent.parent
    assert base.exists()
    places.close()
    assert not base.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_another_user_owns_its_directory_and_can_reach_it(places):
    user = user_of("daemon")
    place = places.take("unix", "web.3", user)
    room = Path(place.address.path).parent
    assert room.stat().st_uid == user.uid
    for above in (room.parent, *room.parent.parents):
        assert above.stat().st_mode & stat.S_IXOTH


def test_an_inherited_socket_listens_already_until_we_close_our_copy(places):
    place = places.take("fd", "web.3", None)
    assert place.values == {"fd": "3"}
    assert place.env == {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    where = (place.address.host, place.address.port)
    socket.create_connection(where).close()
    place.close_listener()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where)


def test_what_a_killed_control_has_left_is_removed_and_nothing_else(places, tmp_path):
    base = Path(places.take("unix", "web.3", None).address.path).parent.parent
    stale = tmp_path / f"{PREFIX}stale"
    other = tmp_path / f"{PREFIX}that-is-not-ours"
    for directory in (stale / "1", other):
        directory.mkdir(parents=True)
    (stale / LOCK).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(base)
    remove_stale(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX}link", other.name]
    remove_stale(str(base.parent))
    assert base.exists(), "its control lives"
