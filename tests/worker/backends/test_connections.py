"""Connections to backends: made, kept for a moment, used again, and never when something is wrong with them."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.model import BackendId, BackendView
from lbproxy.worker.backends.connections import (
    IDLE_PER_BACKEND,
    SWEEP_S,
    BackendConnection,
    BackendConnections,
    ConnectFailed,
    Crowded,
    begin_connect,
    connect,
    is_silent,
)
from lbproxy.worker.io.reactor import Reactor

settled = trio.testing.wait_all_tasks_blocked


def view_of(server: socket.socket, cell: int = 1) -> BackendView:
    name = server.getsockname()
    address = Address(path=name) if isinstance(name, str) else Address(*name[:2])
    return BackendView(BackendId("web", cell, 1), address, cell)


class Bench:
    """Idle connections on a running reactor, and a backend that they lead to."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.idle = BackendConnections(reactor)
        self.server = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.view = view_of(self.server)
        self.accepted: list[socket.socket] = []

    async def connect(self) -> BackendConnection:
        connection = await connect(self.view, 2.0)
        self.accepted.append(self.server.accept()[0])
        return connection

    def close(self) -> None:
        self.idle.close()
        for sock in (self.server, *self.accepted):
            sock.close()
        self.reactor.close()


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    reactor = Reactor(lambda event: None)
    made = Bench(reactor)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            await settled()
            yield made
            nursery.cancel_scope.cancel()
    finally:
        made.close()


def is_open(connection: BackendConnection) -> bool:
    assert connection.sock is not None
    return connection.sock.fileno() >= 0


# Used again


@trio_test
async def test_a_connection_that_was_given_back_is_used_again() -> None:
    async with running() as bench:
        first = await bench.connect()
        assert not first.reused
        bench.idle.give_back(first)
        again = bench.idle.take_checked(bench.view, 60)
        assert again is first
        assert first.reused
        assert bench.idle.take_checked(bench.view, 60) is None
        first.close()


@trio_test
async def test_the_youngest_is_used_first() -> None:
    async with running() as bench:
        connections = [await bench.connect() for _ in range(3)]
        for connection in connections:
            bench.idle.give_back(connection)
        taken = [bench.idle.take_checked(bench.view, 60) for _ in range(3)]
        assert taken == connections[::-1]
        for connection in connections:
            connection.close()


@trio_test
async def test_each_backend_has_connections_of_its_own() -> None:
    async with running() as bench:
        connection = await bench.connect()
        bench.idle.give_back(connection)
        other = BackendView(BackendId("web", 2, 1), bench.view.address, 2)
        assert bench.idle.take_checked(other, 60) is None
        assert is_open(connection)


@trio_test
async def test_one_that_is_too_old_is_closed_with_all_that_are_older() -> None:
    async with running() as bench:
        connections = [await bench.connect() for _ in range(2)]
        for connection in connections:
            bench.idle.give_back(connection)
        assert bench.idle.take(bench.view, 0.0) is None
        assert not any(map(is_open, connections))


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 408 Timeout\r\n\r\n"], ids=["an end", "bytes"])
@trio_test
async def test_an_idle_connection_that_ends_or_speaks_unasked_is_dropped_at_once(says: bytes) -> None:
    async with running() as bench:
        connection = await bench.connect()
        bench.idle.give_back(connection)
        await settled()
        if says:
            bench.accepted[0].send(says)
        else:
            bench.accepted[0].close()
        while is_open(connection):
            await settled(0.001)
        assert bench.idle.take(bench.view, 60) is None


@pytest.mark.parametrize("says", [b"", b"x"], ids=["an end", "bytes"])
@trio_test
async def test_one_that_has_just_ended_is_not_taken_by_a_task(says: bytes) -> None:
    """The reactor had no time to notice."""
    async with running() as bench:
        old, ended = await bench.connect(), await bench.connect()
        bench.idle.give_back(old)
        bench.idle.give_back(ended)
        if says:
            bench.accepted[1].send(says)
        else:
            bench.accepted[1].close()
        assert bench.idle.take_checked(bench.view, 60) is old
        assert not is_open(ended)
        old.close()


@trio_test
async def test_a_reset_of_an_idle_connection_is_an_end() -> None:
    async with running() as bench:
        connection = await bench.connect()
        bench.idle.give_back(connection)
        bench.accepted[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        bench.accepted[0].close()
        assert bench.idle.take_checked(bench.view, 60) is None


@trio_test
async def test_only_so_many_are_kept_and_the_oldest_goes() -> None:
    async with running() as bench:
        connections = [await bench.connect() for _ in range(IDLE_PER_BACKEND + 1)]
        for connection in connections:
            bench.idle.give_back(connection)
        assert not is_open(connections[0])
        assert all(map(is_open, connections[1:]))


@trio_test
async def test_what_has_been_idle_for_too_long_is_swept_out() -> None:
    async with running() as bench:
        bench.idle.give_back(connection := await bench.connect())
        assert bench.idle.sweep({"web": 60}) == pytest.approx(60, abs=5), "nothing to do before"
        assert is_open(connection)
        assert bench.idle.sweep({"web": 0}) is None, "nothing is left to sweep"
        assert not is_open(connection)


@trio_test
async def test_the_next_sweep_is_when_the_oldest_has_been_idle_for_long_enough_but_not_at_once() -> None:
    async with running() as bench:
        other = BackendView(BackendId("api", 0, 1), bench.view.address, 2)
        for view, idle_s in ((bench.view, 3.0), (other, 9.0)):
            bench.idle.give_back(connection := BackendConnection(view, (await bench.connect()).sock))
            connection.idle_since = trio.current_time() - idle_s
        assert bench.idle.sweep({"web": 10, "api": 20}) == pytest.approx(7, abs=1)
        assert bench.idle.sweep({"web": 10, "api": 12}) == pytest.approx(3, abs=1)
        connection.idle_since = trio.current_time() + SWEEP_S / 2 - 12.0
        assert bench.idle.sweep({"web": 10, "api": 12}) == SWEEP_S, "not more often"


@trio_test
async def test_the_first_idle_connection_asks_for_a_sweep_and_so_does_the_first_behind_the_last_sweep() -> None:
    async with running() as bench:
        asked = 0

        def ask() -> None:
            nonlocal asked
            asked += 1

        bench.idle.on_first_idle = ask
        for times in (1, 2):
            bench.idle.give_back(await bench.connect())
            bench.idle.give_back(await bench.connect())
            assert asked == times
            bench.idle.sweep({})


@trio_test
async def test_a_pool_that_is_gone_keeps_nothing() -> None:
    async with running() as bench:
        bench.idle.give_back(connection := await bench.connect())
        bench.idle.sweep({})
        assert not is_open(connection)


@trio_test
async def test_a_backend_that_has_left_keeps_no_connection() -> None:
    async with running() as bench:
        connections = [await bench.connect() for _ in range(2)]
        for connection in connections:
            bench.idle.give_back(connection)
        bench.idle.forget(bench.view)
        assert not any(map(is_open, connections))
        bench.idle.forget(bench.view)
        assert bench.idle.take(bench.view, 60) is None


# Connecting


@trio_test
async def test_a_connection_stands_without_delay_for_small_messages() -> None:
    async with running() as bench:
        connection = await bench.connect()
        assert connection.sock is not None
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not connection.sock.getblocking()
        assert is_silent(connection.sock)
        connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@trio_test
async def test_an_address_of_either_family_is_connected_to(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        address = Address(host, server.getsockname()[1])
        connection = await connect(BackendView(BackendId("web", 1, 1), address, 1), 2.0)
        server.accept()[0].close()
        connection.close()


def test_a_handshake_of_tls_needs_a_task() -> None:
    assert begin_connect(Address("127.0.0.1", 80, secure=True)) is None


@trio_test
async def test_a_port_where_nobody_listens_is_an_error_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        view = view_of(server)
    with pytest.raises(ConnectFailed, match=f"{view.address}: ECONNREFUSED"):
        await connect(view, 2.0)


@trio_test
async def test_a_name_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ConnectFailed, match=r"no\.such\.host\.invalid"):
        await connect(BackendView(BackendId("web", 1, 1), Address("no.such.host.invalid", 80), 1), 5.0)


@trio_test
async def test_a_path_where_nothing_is_is_an_error(tmp_path: Path) -> None:
    view = BackendView(BackendId("web", 1, 1), Address(path=str(tmp_path / "app.sock")), 1)
    with pytest.raises(ConnectFailed, match="ENOENT"):
        await connect(view, 2.0)


@pytest.fixture
def crowded(tmp_path: Path) -> tuple[socket.socket, list[socket.socket]]:
    """A unix socket whose queue is full, and who fills it."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "app.sock"))
    server.listen(0)
    waiting = []
    with suppress(Crowded):
        while (sock := begin_connect(Address(path=server.getsockname()))) is not None:
            waiting.append(sock)
    return server, waiting


@trio_test
async def test_a_crowded_unix_socket_is_waited_for(crowded: tuple[socket.socket, list[socket.socket]]) -> None:
    server, waiting = crowded
    with server:
        async with trio.open_nursery() as nursery:
            made: list[BackendConnection] = []

            async def connecting() -> None:
                made.append(await connect(view_of(server), 5.0))

            nursery.start_soon(connecting)
            await settled()
            assert not made
            server.accept()[0].close()
        made[0].close()
    for sock in waiting:
        sock.close()


@trio_test
async def test_it_is_not_waited_for_any_longer_than_a_connection_may_take(
    crowded: tuple[socket.socket, list[socket.socket]],
) -> None:
    server, waiting = crowded
    with server, pytest.raises(ConnectFailed, match="did not accept a connection within 0"):
        await connect(view_of(server), 0.05)
    for sock in waiting:
        sock.close()


@trio_test
async def test_a_backend_that_does_not_take_connections_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        filling = [begin_connect(view_of(server).address) for _ in range(4)]
        await settled(0.01)
        with pytest.raises(ConnectFailed, match="did not accept"):
            await connect(view_of(server), 0.1)
        for sock in filling:
            assert sock is not None
            sock.close()
