"""Clients come in, from listening sockets that come and go; nobody who has connected is forgotten."""

import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio
import trio.testing
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.link.grid import Counter, Grid
from lbproxy.model import ListenerView, RoutingTable
from lbproxy.settings import ListenerLimits, ListenerSettings
from lbproxy.telemetry.events import AcceptPaused, AcceptResumed, Event, Notice
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.front.accept import ACCEPT_BATCH, LEAVE_S, Acceptor
from lbproxy.worker.io.reactor import Reactor


class Bench:
    """An acceptor on a running reactor. What it accepts stays open, and counted, until `let_go`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reactor = Reactor(self.events.append)
        self.grid = Grid.create(2, 4)
        self.acceptor = Acceptor(self.reactor, self.grid, 0, self.events.append)
        self.acceptor.open = self._open
        self.open: list[tuple[socket.socket, ListenerView, ClientFacts]] = []
        self._owned: list[socket.socket] = []

    def _open(self, sock: socket.socket, view: ListenerView, facts: ClientFacts) -> None:
        self.acceptor.opened(view)
        self.open.append((sock, view, facts))

    def let_go(self) -> None:
        sock, view, _ = self.open.pop(0)
        sock.close()
        self.acceptor.closed(view)

    def listen(self, key: int = 1, *, limit: int = 100, trusted: tuple[str, ...] = ()) -> ListenerView:
        """A listener, whose socket we keep as control does."""
        sock = socket.create_server(("127.0.0.1", 0), backlog=500)
        return self.view(sock, key, limit=limit, trusted=trusted)

    def view(
        self, sock: socket.socket, key: int = 1, *, limit: int = 100, trusted: tuple[str, ...] = ()
    ) -> ListenerView:
        sock.setblocking(False)
        self._owned.append(sock)
        name = sock.getsockname()
        address = Address(*name[:2]) if isinstance(name, tuple) else Address(path=name)
        limits = ListenerLimits(connections=limit)
        return ListenerView(key, key, ListenerSettings(f"l{key}", address, trusted_proxies=trusted, limits=limits))

    def apply(self, *views: ListenerView) -> None:
        """As a table does: with a descriptor of each socket."""
        known = {sock.getsockname(): sock for sock in self._owned if sock.fileno() >= 0}
        sockets = {}
        for view in views:
            address = view.settings.address
            sockets[view.key] = known[address.path or (address.host, address.port)].dup()
        self.acceptor.apply(RoutingTable(1, "edge", views, (), ()), sockets)

    def connect(self, view: ListenerView, count: int = 1) -> list[socket.socket]:
        address = view.settings.address
        made = [socket.create_connection((address.host, address.port)) for _ in range(count)]
        self._owned += made
        return made

    def close(self) -> None:
        self.acceptor.close()
        while self.open:
            self.let_go()
        for sock in self._owned:
            sock.close()
        self.reactor.close()
        self.grid.close()

    def said(self) -> list[type[Event]]:
        return [type(event) for event in self.events]


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    made = Bench()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.reactor.run)
            await trio.testing.wait_all_tasks_blocked()
            yield made
            nursery.cancel_scope.cancel()
    finally:
        made.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.testing.wait_all_tasks_blocked(0.001)


@trio_test
async def test_clients_are_taken_over_without_blocking_and_counted() -> None:
    async with running() as bench:
        view = bench.listen()
        bench.apply(view)
        clients = bench.connect(view, 3)
        await until(lambda: len(bench.open) == 3)
        for sock, accepted_view, facts in bench.open:
            assert not sock.getblocking()
            assert not os.get_inheritable(sock.fileno())
            assert accepted_view is view
            assert (facts.ip, facts.trusted, facts.proto) == (b"127.0.0.1", False, b"http")
        assert {sock.getpeername() for sock, _, _ in bench.open} == {client.getsockname() for client in clients}
        assert bench.grid.sum(1, Counter.CONNECTIONS) == bench.grid.sum(1, Counter.ACCEPTED) == 3
        bench.let_go()
        assert (bench.grid.sum(1, Counter.CONNECTIONS), bench.grid.sum(1, Counter.ACCEPTED)) == (2, 3)


@trio_test
async def test_a_crowd_is_taken_in_batches() -> None:
    async with running() as bench:
        view = bench.listen(limit=1000)
        bench.connect(view, 3 * ACCEPT_BATCH)
        bench.apply(view)
        await until(lambda: len(bench.open) == 3 * ACCEPT_BATCH)


# Coming and going


@trio_test
async def test_a_listener_that_stays_keeps_its_socket_and_takes_its_new_settings() -> None:
    async with running() as bench:
        view = bench.listen()
        bench.apply(view)
        before = len(os.listdir("/proc/self/fd"))
        changed = replace(view, settings=replace(view.settings, trusted_proxies=("127.0.0.0/8",)))
        bench.apply(changed)
        assert len(os.listdir("/proc/self/fd")) == before
        bench.connect(view)
        await until(lambda: len(bench.open) == 1)
        assert bench.open[0][1] is changed
        assert bench.open[0][2].trusted


@trio_test
async def test_a_listener_that_goes_is_emptied_first() -> None:
    async with running() as bench:
        first, second = bench.listen(1), bench.listen(2)
        bench.apply(first, second)
        bench.connect(first, 2 * ACCEPT_BATCH)
        bench.apply(second)
        await bench.acceptor.wait_left()
        assert len(bench.open) == 2 * ACCEPT_BATCH
        bench.connect(second)
        await until(lambda: len(bench.open) == 2 * ACCEPT_BATCH + 1)


@trio_test
async def test_a_listener_that_comes_is_accepted_from() -> None:
    async with running() as bench:
        first, second = bench.listen(1), bench.listen(2)
        bench.apply(first)
        bench.connect(second)
        bench.apply(first, second)
        await until(lambda: len(bench.open) == 1)
        assert bench.open[0][1] is second


@trio_test
async def test_a_handshake_that_has_begun_is_waited_for() -> None:
    """Its client has seen our half of it and takes the connection for granted: a close would reset it."""
    async with running() as bench:
        view = bench.listen()
        # The kernel waits for the first byte with the last part of a handshake: so we say when it comes.
        bench._owned[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        bench.apply(view)
        (late,) = bench.connect(view)
        await trio.testing.wait_all_tasks_blocked(0.01)
        bench.acceptor.leave_all()
        await trio.sleep(LEAVE_S / 3)
        assert not bench.open
        late.send(b"GET")
        await until(lambda: len(bench.open) == 1)
        await bench.acceptor.wait_left()
        assert not any(bench.reactor.handlers)


@trio_test
async def test_nobody_is_accepted_after_the_last_listener_has_left() -> None:
    async with running() as bench:
        view = bench.listen()
        bench.apply(view)
        bench.connect(view, 2)
        bench.acceptor.leave_all()
        assert bench.acceptor.leaving
        await bench.acceptor.wait_left()
        assert not bench.acceptor.leaving
        bench.connect(view)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(bench.open) == 2


@trio_test
async def test_a_mistake_with_the_last_client_does_not_keep_a_listener_from_leaving() -> None:
    async with running() as bench:
        view = bench.listen()
        bench.apply(view)
        (listening,) = bench.acceptor._listening.values()
        bench.acceptor.leave_all()
        bench.reactor.unregister(listening._sock.fileno())  # the client comes at the very end
        bench.acceptor.open = _cannot
        bench.connect(view)
        await bench.acceptor.wait_left()
        assert Notice in bench.said()


def _cannot(sock: socket.socket, view: ListenerView, facts: ClientFacts) -> None:
    sock.close()
    raise OSError("no space left on device")


# Limits


@trio_test
async def test_over_the_limit_clients_wait_in_the_kernel_until_somebody_leaves() -> None:
    async with running() as bench:
        view = bench.listen(limit=2)
        bench.apply(view)
        bench.connect(view, 3)
        await until(lambda: AcceptPaused in bench.said())
        assert len(bench.open) == 2
        for _ in range(2):
            bench.let_go()
        await until(lambda: len(bench.open) == 1)
        await until(lambda: AcceptResumed in bench.said())
        paused, resumed = bench.events
        assert isinstance(paused, AcceptPaused)
        assert isinstance(resumed, AcceptResumed)
        assert (paused.listener, paused.why) == ("l1", "the listener's limit of connections is reached")
        assert resumed.listener == "l1"


@trio_test
async def test_what_other_workers_hold_counts_for_the_limit() -> None:
    async with running() as bench:
        view = bench.listen(limit=2)
        bench.grid.values[bench.grid.base(1, view.cell) + Counter.CONNECTIONS] = 2
        bench.apply(view)
        bench.connect(view)
        await until(lambda: AcceptPaused in bench.said())
        assert not bench.open
        bench.grid.values[bench.grid.base(1, view.cell) + Counter.CONNECTIONS] = 0
        await until(lambda: len(bench.open) == 1)


@trio_test
async def test_a_limit_that_is_raised_holds_at_once() -> None:
    async with running() as bench:
        view = bench.listen(limit=1)
        bench.apply(view)
        bench.connect(view, 3)
        await until(lambda: AcceptPaused in bench.said())
        bench.apply(replace(view, settings=replace(view.settings, limits=ListenerLimits())))
        await until(lambda: len(bench.open) == 3)


@trio_test
async def test_out_of_descriptors_accepting_pauses_says_so_and_recovers() -> None:
    async with running() as bench:
        view = bench.listen()
        bench.apply(view)
        bench.connect(view, 2)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        filler = [os.dup(0)]
        while filler[-1] < highest:
            filler.append(os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (filler[-1] + 1, hard))
        try:
            await until(lambda: AcceptPaused in bench.said())
            assert not bench.open
            assert len(bench.events) == 1  # once, however often it is tried
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in filler:
                os.close(fd)
        await until(lambda: len(bench.open) == 2)
        assert bench.said() == [AcceptPaused, AcceptResumed]


@trio_test
async def test_a_pause_does_not_keep_a_listener_that_leaves() -> None:
    async with running() as bench:
        first, second = bench.listen(1, limit=1), bench.listen(2)
        bench.apply(first, second)
        bench.connect(first, 2)
        await until(lambda: AcceptPaused in bench.said())
        bench.apply(second)
        await bench.acceptor.wait_left()
        assert len(bench.open) == 1


@trio_test
async def test_who_waits_at_the_limit_is_accepted_when_there_is_room_before_the_listener_has_left() -> None:
    async with running() as bench:
        view = bench.listen(1, limit=1)
        bench.apply(view)
        bench.connect(view, 2)
        await until(lambda: AcceptPaused in bench.said())
        bench.acceptor.leave_all()
        bench.let_go()
        await until(lambda: len(bench.open) == 1)
        await bench.acceptor.wait_left()


@trio_test
async def test_a_client_that_left_while_it_waited_disturbs_nobody() -> None:
    async with running() as bench:
        view = bench.listen()
        for client in bench.connect(view, 2):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            client.close()
        (last,) = bench.connect(view)
        bench.apply(view)
        await until(lambda: last.getsockname() in [peer_of(sock) for sock, _, _ in bench.open])


def peer_of(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:
        return None


# Who they are


@trio_test
async def test_a_client_of_a_unix_socket_has_no_address_whatever_it_calls_itself(tmp_path: Path) -> None:
    async with running() as bench:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "lb.sock"))
        sock.listen()
        view = bench.view(sock, trusted=("0.0.0.0/0",))
        bench.apply(view)
        for name in ("", "\0named", str(tmp_path / "client.sock")):
            client = socket.socket(socket.AF_UNIX)
            bench._owned.append(client)
            if name:
                client.bind(name)
            client.connect(str(tmp_path / "lb.sock"))
        await until(lambda: len(bench.open) == 3)
        assert {(facts.ip, facts.trusted) for _, _, facts in bench.open} == {(b"", False)}
