"""Sockets from the service manager: found by name and number, shared or doubled, never filtered and never closed."""

import fcntl
import os
import socket
from contextlib import ExitStack

import pytest
from support.activation import tcp, unix

from lbproxy.address import Address
from lbproxy.control.listening_socket import BindFailed
from lbproxy.control.passed_sockets import FIRST, NotPassed, PassedSockets, take
from lbproxy.control.sockets import Sockets
from lbproxy.link.grid import CellBook, Grid
from lbproxy.settings import ListenerSettings

PID = 4102


class Manager:
    """Passes sockets at descriptors that are free in the process of the tests, and opens listeners on them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.grid = Grid.create(3, 8)
        stack.callback(self.grid.close)
        self.made: list[socket.socket] = []

    def passes(self, **sockets: socket.socket) -> Sockets:
        first = 700
        for number, sock in enumerate(sockets.values()):
            self.made.append(self._stack.enter_context(sock))
            fd = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, first + number)
            assert fd == first + number
            self._stack.callback(os.close, fd)
        opened = Sockets(CellBook(self.grid), PassedSockets(tuple(sockets), first=first))
        self._stack.callback(opened.close)
        return opened


@pytest.fixture
def manager():
    with ExitStack() as stack:
        yield Manager(stack)


def listeners(*names):
    return [ListenerSettings(f"fd:{name}", Address(passed=name)) for name in names]


def rows(sockets, view, workers):
    return [sockets.for_worker(row, [view])[0] for row in range(workers)]


def accepted(fds):
    """How many clients wait in each socket."""
    counts = []
    for fd in fds:
        counts.append(0)
        with socket.socket(fileno=os.dup(fd)) as sock:
            while True:
                try:
                    sock.accept()[0].close()
                except BlockingIOError:
                    break
                counts[-1] += 1
    return counts


def connect(manager, count, number=0):
    name = manager.made[number].getsockname()
    return [socket.create_connection(name, timeout=5) for _ in range(count)]


# The environment


def test_without_variables_there_are_none_and_the_reason_is_said():
    passed = take({}, PID)
    with pytest.raises(NotPassed, match=r"started without sockets \(LISTEN_FDS is not set\)"):
        passed.open("web")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("web:admin", ("web", "admin")),
        ("", ("unknown", "unknown")),
        ("web", ("web", "unknown")),
        ("web:admin:more", ("web", "admin")),
        (":web", ("unknown", "web")),
    ],
)
def test_variables_are_read_and_removed(names, expected):
    environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "2", "LISTEN_FDNAMES": names, "PATH": "/bin"}
    assert take(environ, PID).names == expected
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"LISTEN_FDS": "1"}, r"passed to process \?, and lbproxy is 4102"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "7"}, "passed to process 7, and lbproxy is 4102"),
        ({"LISTEN_FDS": "0", "LISTEN_PID": "4102"}, "LISTEN_FDS is 0"),
        ({"LISTEN_FDS": "many", "LISTEN_PID": "4102"}, "LISTEN_FDS is 'many'"),
        ({"LISTEN_FDS": "99999999999", "LISTEN_PID": "4102"}, "LISTEN_FDS is '99999999999'"),
    ],
)
def test_sockets_that_are_not_for_this_process_are_none(variables, why):
    environ = dict(variables)
    with pytest.raises(NotPassed, match=why):
        take(environ, PID).open("0")
    assert environ == {}


# Names


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("wed", r"no socket is called 'wed' \(there is: web, admin\)"),
        ("3", r"no socket has this number \(there is: fd:0 web, fd:1 admin, fd:2 admin\)"),
        ("admin", "2 sockets are called 'admin': write one of fd:1, fd:2"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_those_that_are(wanted, why):
    with pytest.raises(NotPassed, match=why):
        PassedSockets(("web", "admin", "admin")).open(wanted)


def test_the_error_of_a_start_keeps_the_spelling(manager):
    sockets = manager.passes(Web=tcp(reuse_port=False))
    with pytest.raises(BindFailed, match=r"^cannot listen on fd:web: no socket is called 'web' \(there is: Web\)$"):
        sockets.bind(listeners("web"), 1)


def test_what_does_not_listen_is_of_no_use(manager):
    sockets = manager.passes(web=socket.socket(socket.AF_INET, socket.SOCK_DGRAM), other=socket.socket())
    for name in ("web", "other"):
        with pytest.raises(BindFailed, match=rf"cannot listen on fd:{name}: it is no listening stream socket"):
            sockets.bind(listeners(name), 1)


def test_a_descriptor_that_is_no_socket_is_said():
    read_end, write_end = os.pipe()
    with pytest.raises(NotPassed, match=f"descriptor {read_end} is no socket"):
        PassedSockets(("web",), first=read_end).open("web")
    os.close(write_end)
    os.close(read_end)
    with pytest.raises(NotPassed, match="is no socket: Bad file descriptor"):
        PassedSockets(("web",), first=read_end).open("0")
    assert FIRST == 3


def test_one_socket_is_not_two_listeners(manager):
    sockets = manager.passes(web=tcp(reuse_port=False))
    with pytest.raises(BindFailed, match="cannot listen on fd:0: it is the same socket as fd:web"):
        sockets.bind(listeners("web", "0"), 1)


# Workers


def test_with_reuse_port_every_worker_has_a_socket_of_its_own(manager):
    sockets = manager.passes(web=tcp(reuse_port=True))
    (view,) = sockets.bind(listeners("web"), 2)
    fds = rows(sockets, view, 2)
    clients = connect(manager, 64)
    counts = accepted(fds)
    assert sum(counts) == 64
    assert min(counts) >= 8
    assert sockets.remarks([view], 2) == []
    assert sockets.where(view) == f"fd:web (127.0.0.1:{manager.made[0].getsockname()[1]})"
    (again,) = sockets.bind(listeners("web"), 3)
    assert again.key == view.key
    assert rows(sockets, again, 3)[:2] == fds
    for client in clients:
        client.close()


def test_without_reuse_port_the_workers_share_one_and_that_is_said(manager):
    sockets = manager.passes(web=tcp(reuse_port=False))
    (view,) = sockets.bind(listeners("web"), 2)
    assert len(set(rows(sockets, view, 2))) == 1
    assert sockets.remarks([view], 1) == []
    assert sockets.remarks([view], 2) == [
        "fd:web is one socket for 2 workers, which get clients unevenly: its .socket unit has no ReusePort=yes"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to another user")
def test_a_port_that_belongs_to_another_user_is_shared_and_that_is_said(manager):
    sockets = manager.passes(web=tcp(reuse_port=True, owner=12345))  # as a socket of systemd is root's
    (view,) = sockets.bind(listeners("web"), 2)
    assert len(set(rows(sockets, view, 2))) == 1
    (line,) = sockets.remarks([view], 2)
    assert line.endswith("no other can be bound beside it (address already in use)")


def test_a_unix_socket_is_shared_and_its_path_stays(manager, tmp_path):
    path = tmp_path / "public.sock"
    sockets = manager.passes(local=unix(path))
    (view,) = sockets.bind(listeners("local"), 3)
    assert len(set(rows(sockets, view, 3))) == 1
    assert sockets.remarks([view], 3) == []
    assert sockets.where(view) == f"fd:local (unix:{path})"
    sockets.close()
    assert path.exists()


# What stays


def test_a_listener_that_goes_leaves_its_clients_in_the_queue(manager):
    sockets = manager.passes(web=tcp(reuse_port=True), other=tcp(reuse_port=False))
    views = sockets.bind(listeners("web", "other"), 2)
    sockets.hide_others(views[1:])
    sockets.release_others(views[1:], 2)
    assert sockets.remarks(views[1:], 1) == [
        "fd:0 (web) was passed to lbproxy and no listener uses it: its clients wait"
    ]
    waiting = connect(manager, 10)
    (back,) = sockets.bind(listeners("web"), 2, hidden=True)
    waiting += connect(manager, 10)  # a reload that takes its time
    sockets.show([back])
    assert sum(accepted(rows(sockets, back, 2))) == 20
    for client in waiting:
        client.close()


def test_at_the_end_clients_wait_for_the_next_lbproxy(manager):
    sockets = manager.passes(web=tcp(reuse_port=True))
    (view,) = sockets.bind(listeners("web"), 2)
    rows(sockets, view, 2)
    sockets.close()
    clients = connect(manager, 10)
    manager.made[0].setblocking(False)
    assert accepted([manager.made[0].fileno()]) == [10]
    for client in clients:
        client.close()
