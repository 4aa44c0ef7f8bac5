"""A worker's end of the link: what it is told it does and says so; without a link it ends. Real processes."""

import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from support.hiring import until
from support.routing import ONE, Bench, routing
from support.tls_peer import client_context, pem
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.control.worker_process import COMMAND
from lbproxy.link.channel import Channel
from lbproxy.link.grid import Counter
from lbproxy.link.messages import (
    Applied,
    AskStats,
    CertificateNames,
    Certificates,
    CertificatesLoaded,
    Drained,
    LogFile,
    Publish,
    Stats,
    Stop,
    ToControl,
    Unreachable,
    Welcome,
)
from lbproxy.model import ListenerView, RoutingTable
from lbproxy.settings import ListenerSettings, ListenerTimeouts, TlsSettings


class Hired:
    """A worker process, as its control sees it."""

    def __init__(self, bench: Bench, channel: Channel, process: trio.Process) -> None:
        self.bench = bench
        self.channel = channel
        self.process = process
        self.server = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.server.setblocking(False)
        address = Address(*self.server.getsockname())
        self.view = ListenerView(7, 9, ListenerSettings("public", address, pool="web", timeouts=ListenerTimeouts()))
        self.epoch = 0
        self.lent: list[int] = []  # descriptors that must be open until they are sent

    def table(self, *pools: Any) -> RoutingTable:
        self.epoch += 1
        return RoutingTable(self.epoch, "edge", (self.view,), (), tuple(pools))

    def give_log(self, path: Path) -> None:
        self.channel.post(LogFile(str(path)), give=[path.open("ab", buffering=0)])

    def publish(self, table: RoutingTable) -> None:
        path = Path(table.access_path)
        if table.access != "off" and path.parent.exists() and path.name != "-":
            self.give_log(path)
        self.channel.post(Publish(table, (self.view.key,)), [self.server.fileno()])

    async def hear(self) -> Any:
        with trio.fail_after(10):
            return await self.channel.receive()

    async def ask(self) -> Stats:
        self.channel.post(AskStats(1))
        stats = await self.hear()
        assert isinstance(stats, Stats)
        return stats

    def wake_ups(self) -> int:
        """How often its main thread has gone to sleep so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    def certify(self, serial: int, *parts: bytes) -> None:
        """Send a certificate for the listener: chain and key."""
        fds = [os.memfd_create("test") for _ in parts]
        for fd, part in zip(fds, parts, strict=True):
            os.write(fd, part)
        message = Certificates(serial, self.view.key, (CertificateNames(("a.example",)),))
        self.channel.post(message, fds)
        self.lent += fds

    async def get(self, *, tls: bool = False) -> bytes:
        """Of a fresh connection."""
        stream: Any = await trio.open_tcp_stream(*self.server.getsockname())
        if tls:
            stream = trio.SSLStream(stream, client_context(), server_hostname="a.example")
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join([chunk async for chunk in stream])
        await stream.aclose()
        return answer


@asynccontextmanager
async def hired(*, welcome: bool = True) -> AsyncIterator[Hired]:
    ours, theirs = socket.socketpair()
    with theirs, routing() as bench:
        process = await trio.lowlevel.open_process(
            [*COMMAND, str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL
        )
        theirs.close()
        made = Hired(bench, Channel(ours, ToControl), process)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.channel.run_writer)
                if welcome:
                    made.channel.post(Welcome(1, bench.grid.rows, bench.grid.cells, "json"), [bench.grid.fd])
                yield made
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            made.channel.close()
            made.server.close()
            for fd in made.lent:
                os.close(fd)


@trio_test
async def test_a_table_is_applied_and_said_so() -> None:
    async with hired() as worker:
        worker.publish(worker.table(worker.bench.pool()))
        assert await worker.hear() == Applied(1)
        assert (await worker.ask()).ask == 1


@trio_test
async def test_it_says_how_long_anybody_had_to_wait_of_late() -> None:
    async with hired() as worker:
        worker.publish(worker.table())
        await worker.hear()
        await worker.get()
        first, second = await worker.ask(), await worker.ask()
        assert 0 < first.longest_batch_s <= first.longest_turn_s < 5
        assert second.longest_turn_s >= first.longest_turn_s, "being asked makes nobody forget"


@trio_test
async def test_a_worker_that_has_nothing_to_do_does_not_wake_up(tmp_path: Path) -> None:
    async with hired() as worker:
        worker.publish(replace(worker.table(), access="json", access_path=str(tmp_path / "access.log")))
        await worker.hear()
        await worker.get()
        await trio.sleep(0.3)
        before = worker.wake_ups()
        await trio.sleep(1.5)
        assert worker.wake_ups() - before <= 2


@trio_test
async def test_a_line_of_the_access_log_does_not_wait_for_another_one(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with hired() as worker:
        worker.publish(replace(worker.table(), access="json", access_path=str(path)))
        await worker.hear()
        for answers in (1, 2, 3):
            await worker.get()
            await until(lambda lines=answers: path.read_text().count("\n") == lines)


@trio_test
async def test_an_older_table_changes_nothing_and_leaks_nothing() -> None:
    async with hired() as worker:
        old, new = worker.table(worker.bench.pool()), worker.table(worker.bench.pool())
        worker.publish(new)
        assert await worker.hear() == Applied(2)
        before = os.listdir(f"/proc/{worker.process.pid}/fd")
        for _ in range(3):
            worker.publish(old)
            worker.publish(new)
        await worker.ask()
        assert os.listdir(f"/proc/{worker.process.pid}/fd") == before


@trio_test
async def test_a_backend_that_left_is_drained() -> None:
    async with hired() as worker:
        worker.publish(worker.table(worker.bench.pool(ONE)))
        worker.publish(worker.table(worker.bench.pool()))
        assert await worker.hear() == Applied(1)
        assert {str(await worker.hear()), str(await worker.hear())} == {str(Drained("web.1@1", 2)), str(Applied(2))}


@trio_test
async def test_clients_are_served_from_the_sockets_that_came_with_the_table() -> None:
    async with hired() as worker:
        worker.publish(worker.table())
        assert await worker.hear() == Applied(1)
        assert (await worker.get()).startswith(b"HTTP/1.1 404 ")
        assert worker.bench.grid.sum(worker.view.cell, Counter.ACCEPTED) == 1


@trio_test
async def test_a_table_without_a_listener_is_applied_when_nobody_is_left_in_its_socket() -> None:
    async with hired() as worker:
        # The kernel waits for the first byte with the last part of a handshake.
        worker.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        worker.publish(worker.table())
        assert await worker.hear() == Applied(1)
        async with await trio.open_tcp_stream(*worker.server.getsockname()) as late:
            worker.channel.post(Publish(replace(worker.table(), listeners=()), ()))
            assert (await worker.ask()).ask == 1, "it does not stand still meanwhile"
            await late.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await late.receive_some(65536)).startswith(b"HTTP/1.1 404 ")
            assert await worker.hear() == Applied(2)


@trio_test
async def test_a_table_that_keeps_idle_connections_for_less_long_holds_for_those_that_are_idle() -> None:
    server = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with hired() as worker, server[0]:
        backend = replace(ONE, address=Address(*server[0].socket.getsockname()))
        pool = worker.bench.pool(backend)
        worker.publish(worker.table(replace(pool, timeouts=replace(pool.timeouts, keepalive_s=60.0))))
        assert await worker.hear() == Applied(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.get)
            stream = await server[0].accept()
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        worker.publish(worker.table(replace(pool, timeouts=replace(pool.timeouts, keepalive_s=0.1))))
        assert await worker.hear() == Applied(2)
        with trio.fail_after(5):
            assert await stream.receive_some(1) == b""
        await stream.aclose()


@trio_test
async def test_a_backend_that_refuses_is_told_of() -> None:
    async with hired() as worker:
        gone = replace(ONE, address=Address("127.0.0.1", 9))
        pool = worker.bench.pool(gone)
        worker.publish(worker.table(replace(pool, limits=replace(pool.limits, queue_timeout_s=0.1))))
        assert await worker.hear() == Applied(1)
        assert (await worker.get()).startswith(b"HTTP/1.1 503 ")
        said = await worker.hear()
        assert isinstance(said, Unreachable)
        assert said.backend == "web.1@1"
        assert "refused" in said.why.lower()


@trio_test
async def test_without_a_link_it_ends() -> None:
    async with hired() as worker:
        worker.publish(worker.table())
        await worker.hear()
        worker.channel.close()
        with trio.fail_after(5):
            assert await worker.process.wait() == 0


@trio_test
async def test_it_stops_when_it_is_told_to_and_has_nothing_in_hand() -> None:
    async with hired() as worker:
        worker.publish(worker.table())
        await worker.hear()
        client = await trio.open_tcp_stream(*worker.server.getsockname())
        worker.channel.post(Stop(30.0))
        with trio.fail_after(5):
            assert await worker.process.wait() == 0
            assert await client.receive_some() == b""
        await client.aclose()


@trio_test
async def test_whoever_is_not_control_is_not_listened_to() -> None:
    async with hired(welcome=False) as worker:
        worker.channel.post(Stop(1.0))
        with trio.fail_after(5):
            assert await worker.process.wait() == 1


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM],
    ids=lambda number: number.name,
)
@trio_test
async def test_signals_are_for_control_alone(number: signal.Signals) -> None:
    """Ctrl-C, `pkill -USR2 -f lbproxy`, and a service manager that sends TERM to every process of ours."""
    async with hired() as worker:
        worker.publish(worker.table())
        await worker.hear()
        worker.process.send_signal(number)
        assert (await worker.ask()).ask == 1


@trio_test
async def test_an_access_log_that_cannot_be_opened_costs_nobody_an_answer(tmp_path: Path) -> None:
    async with hired() as worker:
        path = tmp_path / "none" / "access.log"
        worker.publish(replace(worker.table(), access="json", access_path=str(path)))
        assert await worker.hear() == Applied(1)
        assert (await worker.get()).startswith(b"HTTP/1.1 404 ")
        path.parent.mkdir()
        worker.give_log(path)  # control could open it at last
        assert (await worker.ask()).ask == 1  # it has come
        assert (await worker.get()).startswith(b"HTTP/1.1 404 ")
        await until(lambda: path.read_text().count("\n") == 1)


@trio_test
async def test_the_access_log_moves_with_the_table(tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    async with hired() as worker:
        for path in (first, second):
            worker.publish(replace(worker.table(), access="json", access_path=str(path)))
            await worker.hear()
            await worker.get()
        worker.channel.post(Stop(1.0))
        await worker.process.wait()
    assert first.read_text().count("\n") == second.read_text().count("\n") == 1


@trio_test
async def test_certificates_are_loaded_before_the_table_and_a_bad_one_keeps_the_one_before() -> None:
    async with hired() as worker:
        worker.view = replace(worker.view, settings=replace(worker.view.settings, tls=TlsSettings(min_version="1.3")))
        whole = pem().read_bytes()
        worker.certify(1, whole, whole)
        worker.publish(worker.table())
        assert [await worker.hear(), await worker.hear()] == [CertificatesLoaded(1), Applied(1)]
        open_fds = len(os.listdir(f"/proc/{worker.process.pid}/fd"))
        assert (await worker.get(tls=True)).startswith(b"HTTP/1.1 404")
        worker.certify(2, whole, b"nonsense")
        loaded = await worker.hear()
        assert isinstance(loaded, CertificatesLoaded)
        assert (loaded.serial, loaded.why[:42]) == (2, "certificate or private key cannot be read:")
        assert (await worker.get(tls=True)).startswith(b"HTTP/1.1 404")
        worker.certify(3, whole, whole)
        assert await worker.hear() == CertificatesLoaded(3)
        assert (await worker.get(tls=True)).startswith(b"HTTP/1.1 404")
        await until(lambda: len(os.listdir(f"/proc/{worker.process.pid}/fd")) <= open_fds)
