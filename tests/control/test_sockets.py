"""Listening sockets, with real binds: one for each worker, nobody else's port, and nothing half-done."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.ports import free_port

from lbproxy.address import Address
from lbproxy.control.listening_socket import BindFailed
from lbproxy.control.sockets import Sockets
from lbproxy.link.grid import CellBook, Grid
from lbproxy.model import ListenerView
from lbproxy.settings import ListenerSettings

CELLS = 8


class Owner:
    """Sockets, and the book of cells they use."""

    def __init__(self) -> None:
        self.grid = Grid.create(2, CELLS)
        self.book = CellBook(self.grid)
        self.sockets = Sockets(self.book)

    def bind(self, *addresses: Address, workers: int = 2) -> tuple[ListenerView, ...]:
        return self.sockets.bind([ListenerSettings(str(address), address) for address in addresses], workers)

    def free_cells(self) -> int:
        taken = []
        with suppress(RuntimeError):
            while True:
                taken.append(self.book.take())
        for cell in taken:
            self.book.give_back(cell)
        return len(taken)

    def accept_all(self, row: int, view: ListenerView) -> int:
        """As a worker does, until nobody waits there."""
        (fd,) = self.sockets.for_worker(row, [view])
        count = 0
        with socket.socket(fileno=os.dup(fd)) as listening, suppress(BlockingIOError):
            while True:
                listening.accept()[0].close()
                count += 1
        return count

    def close(self) -> None:
        self.sockets.close()
        self.grid.close()


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.close()


def tcp(host: str = "127.0.0.1") -> Address:
    return Address(host, free_port())


def connect(address: Address) -> socket.socket:
    if address.path is not None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.path)
        return sock
    return socket.create_connection((address.host or "127.0.0.1", address.port), timeout=5)


def is_served(address: Address) -> bool:
    try:
        connect(address).close()
    except OSError:
        return False
    return True


def stranger(address: Address, *, share: bool) -> socket.socket:
    """Another program that listens there."""
    sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if share:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((address.host, address.port))
    sock.listen()
    return sock


# TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "", "localhost"])
def test_every_worker_has_a_listening_socket_of_its_own(owner: Owner, host: str) -> None:
    address = tcp(host)
    (view,) = owner.bind(address, workers=3)
    fds = {owner.sockets.for_worker(row, [view])[0] for row in range(3)}
    assert len(fds) == 3
    assert not any(map(os.get_inheritable, fds))
    assert not any(map(os.get_blocking, fds))
    clients = [connect(Address("127.0.0.1" if host in ("0.0.0.0", "", "localhost") else host, address.port))]
    assert sum(owner.accept_all(row, view) for row in range(3)) == 1
    clients[0].close()


def test_an_empty_host_is_both_families(owner: Owner) -> None:
    address = tcp("")
    owner.bind(address)
    for host in ("127.0.0.1", "::1"):
        assert is_served(Address(host, address.port))


def test_an_ipv6_address_leaves_the_ipv4_port_alone(owner: Owner) -> None:
    address = tcp("::")
    owner.bind(address, Address("0.0.0.0", address.port))
    assert is_served(Address("127.0.0.1", address.port))
    assert is_served(Address("::1", address.port))


def test_the_kernel_spreads_clients_over_the_workers(owner: Owner) -> None:
    address = tcp()
    (view,) = owner.bind(address, workers=2)
    clients = [connect(address) for _ in range(64)]
    counts = [owner.accept_all(row, view) for row in range(2)]
    for client in clients:
        client.close()
    assert sum(counts) == 64
    assert min(counts) >= 8


def test_accepted_connections_do_not_wait_for_more_to_send(owner: Owner) -> None:
    address = tcp()
    (view,) = owner.bind(address, workers=1)
    with connect(address), socket.socket(fileno=os.dup(owner.sockets.for_worker(0, [view])[0])) as listening:
        accepted, _ = listening.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()


@pytest.mark.parametrize("share", [True, False], ids=["shared", "not shared"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_another_program_holds_is_found_in_use_even_if_it_would_share(
    owner: Owner, host: str, share: bool
) -> None:
    address = tcp()
    with (
        stranger(Address(host, address.port), share=share),
        pytest.raises(BindFailed, match=f"^cannot listen on {address}: address already in use$"),
    ):
        owner.bind(address)
    assert owner.free_cells() == CELLS


def test_more_workers_get_sockets_beside_the_first_ones(owner: Owner) -> None:
    address = tcp()
    (before,) = owner.bind(address, workers=1)
    first = owner.sockets.for_worker(0, [before])
    (after,) = owner.bind(address, workers=3)
    assert after.key == before.key
    assert after.cell == before.cell
    assert owner.sockets.for_worker(0, [after]) == first
    assert len({owner.sockets.for_worker(row, [after])[0] for row in range(3)}) == 3


def test_nobody_is_queued_for_a_worker_that_is_not_there_yet(owner: Owner) -> None:
    address = tcp()
    (view,) = owner.bind(address, workers=1)
    owner.sockets.for_worker(0, [view])
    (view,) = owner.bind(address, workers=2)  # a reload that takes its time
    clients = [connect(address) for _ in range(20)]
    assert owner.accept_all(0, view) == 20
    owner.sockets.for_worker(1, [view])
    clients += [connect(address) for _ in range(40)]
    assert owner.accept_all(1, view) > 0
    for client in clients:
        client.close()


def test_a_port_in_time_wait_can_be_had(owner: Owner) -> None:
    address = tcp()
    with stranger(address, share=False) as server:
        client = connect(address)
        accepted, _ = server.accept()
        accepted.close()  # who closes first waits
        client.recv(1)
        client.close()
    owner.bind(address)
    assert is_served(address)


# What stays, what goes


def test_settings_may_change_while_the_sockets_stay(owner: Owner) -> None:
    address = tcp()
    (before,) = owner.bind(address)
    (after,) = owner.sockets.bind([ListenerSettings("renamed", address, mode="tcp")], 2)
    assert (after.key, after.cell) == (before.key, before.cell)
    assert after.settings.name == "renamed"


def test_a_socket_that_no_table_names_is_open_until_it_is_released(owner: Owner) -> None:
    old, new = tcp(), tcp()
    (gone,) = owner.bind(old)
    views = owner.bind(new)
    assert is_served(old)
    owner.sockets.release_others(views, 2)
    assert not is_served(old)
    assert is_served(new)
    assert owner.free_cells() == CELLS - 1
    (again,) = owner.bind(old)
    assert again.key != gone.key


def test_nobody_connects_to_a_hidden_one_until_it_is_shown(owner: Owner, tmp_path: Path) -> None:
    address, path = tcp(), Address(path=str(tmp_path / "public.sock"))
    views = owner.sockets.bind([ListenerSettings(str(one), one) for one in (address, path)], 2, hidden=True)
    with socket.socket() as early:
        early.settimeout(0.2)
        with pytest.raises(TimeoutError):
            early.connect((address.host, address.port))
    with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
        early.connect(str(path.path))
    owner.sockets.show(views)
    for one in [address, path] * 10:
        connect(one).close()
    assert sum(owner.accept_all(row, views[0]) for row in range(2)) == 10
    assert owner.accept_all(0, views[1]) == 10


def test_nobody_begins_to_connect_where_a_listener_goes_and_who_has_is_accepted(owner: Owner, tmp_path: Path) -> None:
    stays, goes = tcp(), tcp()
    path = Address(path=str(tmp_path / "public.sock"))
    views = owner.bind(stays, goes, path, workers=2)
    early = [connect(address) for address in (stays, goes, path) for _ in range(10)]
    owner.sockets.hide_others(views[:1])
    connect(stays).close()
    with socket.socket() as late:
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.connect((goes.host, goes.port))
    assert not os.path.exists(str(path.path))
    assert [owner.accept_all(0, view) + owner.accept_all(1, view) for view in views] == [11, 10, 10]
    for client in early:
        client.settimeout(5)
        assert client.recv(1) == b"", "an orderly end: it was accepted"
        client.close()
    owner.sockets.release_others(views[:1], 2)
    assert is_served(stays)
    assert not is_served(goes)
    (again,) = owner.bind(goes)
    assert is_served(goes), "by a socket of its own"
    assert again.key != views[1].key


def test_connections_that_wait_survive_every_change_around_them(owner: Owner) -> None:
    address, other = tcp(), tcp()
    (view,) = owner.bind(address, workers=2)
    clients = [connect(address) for _ in range(20)]
    views = owner.bind(address, other, workers=3)
    owner.sockets.release_others(views[:1], 3)
    with pytest.raises(BindFailed), stranger(other, share=True):
        owner.bind(address, other, workers=4)
    assert sum(owner.accept_all(row, view) for row in range(3)) == 20
    for client in clients:
        client.settimeout(5)
        assert client.recv(1) == b""  # an orderly end: it was accepted
        client.close()


def test_fewer_workers_need_fewer_sockets(owner: Owner) -> None:
    address = tcp()
    views = owner.bind(address, workers=3)
    owner.sockets.release_others(views, 1)
    for _ in range(20):
        connect(address).close()
    assert owner.accept_all(0, views[0]) == 20


# Undone on failure


def test_a_failure_leaves_everything_as_it_was(owner: Owner, tmp_path: Path) -> None:
    kept, fresh, taken = tcp(), tcp(), tcp()
    path = tmp_path / "new.sock"
    (view,) = owner.bind(kept, workers=1)
    with stranger(taken, share=False), pytest.raises(BindFailed, match=str(taken)):
        owner.bind(kept, fresh, Address(path=str(path)), taken, workers=3)
    assert is_served(kept)
    assert not is_served(fresh)
    assert not path.exists()
    assert owner.free_cells() == CELLS - 1
    for _ in range(10):
        connect(kept).close()
    assert owner.accept_all(0, view) == 11  # no socket of a worker that does not exist takes any


def test_more_listeners_than_cells_are_refused_and_undone(owner: Owner) -> None:
    addresses = [tcp() for _ in range(CELLS + 1)]
    with pytest.raises(BindFailed, match="more than"):
        owner.bind(*addresses, workers=1)
    assert owner.free_cells() == CELLS
    assert not any(map(is_served, addresses))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (Address("192.0.2.1", 8080), "cannot assign requested address"),
        (Address("no.such.host.invalid", 8080), ""),
        (Address(path="/nowhere/lb.sock"), "no such file or directory"),
    ],
    ids=str,
)
def test_the_reason_is_one_line_that_names_the_address(owner: Owner, address: Address, why: str) -> None:
    with pytest.raises(BindFailed) as caught:
        owner.bind(address)
    assert str(caught.value).startswith(f"cannot listen on {address}: {why}")
    assert "\n" not in str(caught.value)


def test_all_workers_share_a_unix_socket(owner: Owner, tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "lb.sock"))
    (view,) = owner.bind(address, workers=3)
    assert len({owner.sockets.for_worker(row, [view])[0] for row in range(3)}) == 1
    connect(address).close()
    assert owner.accept_all(2, view) == 1


def test_a_stale_unix_socket_is_replaced(owner: Owner, tmp_path: Path) -> None:
    path = str(tmp_path / "lb.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    owner.bind(Address(path=path))
    assert is_served(Address(path=path))


@pytest.mark.parametrize("backlog", [10, 0], ids=["with room", "with a full queue"])
def test_a_unix_socket_that_somebody_answers_on_is_left_alone(owner: Owner, tmp_path: Path, backlog: int) -> None:
    path = str(tmp_path / "lb.sock")
    waiting = []
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(path)
        live.listen(backlog)
        with suppress(BlockingIOError):
            for _ in range(0 if backlog else 10):
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                waiting[-1].connect(path)
        with pytest.raises(BindFailed, match="address already in use"):
            owner.bind(Address(path=path))
        assert stat.S_ISSOCK(os.stat(path).st_mode)
    for sock in waiting:
        sock.close()


def test_a_file_in_the_way_is_left_alone(owner: Owner, tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    path.write_text("precious")
    with pytest.raises(BindFailed, match="a file that is not a socket is in the way"):
        owner.bind(Address(path=str(path)))
    assert path.read_text() == "precious"


def test_a_unix_socket_goes_with_its_owner(owner: Owner, tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    owner.bind(Address(path=str(path)))
    owner.sockets.close()
    assert not path.exists()


def test_a_path_that_somebody_else_took_over_is_not_removed(owner: Owner, tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    owner.bind(Address(path=str(path)))
    path.rename(tmp_path / "aside")
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        owner.sockets.close()
        assert path.exists()


def test_a_unix_path_without_permission_says_nothing_of_ports(owner: Owner, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(BindFailed, match=r"permission denied$"):
        owner.bind(Address(path=str(tmp_path / "lb.sock")))
