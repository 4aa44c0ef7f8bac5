"""Real workers under a real `Workers`, between clients and a backend that the test plays. Real sockets, real time."""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from lbproxy.address import Address
from lbproxy.control.sockets import Sockets
from lbproxy.control.tallies import Tallies
from lbproxy.control.worker_process import COMMAND
from lbproxy.control.workers import Workers
from lbproxy.link.grid import CellBook, Counter, Grid
from lbproxy.model import BackendId, BackendView, ListenerView, PoolView, RoutingTable
from lbproxy.settings import DrainSettings, ListenerSettings, LogSettings, PoolLimits, PoolTimeouts
from lbproxy.telemetry.events import Event
from support.ports import free_port

ROWS, CELLS = 4, 64
REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
PRELUDE = """
import socket, sys, trio
from lbproxy.link.channel import Channel
from lbproxy.link.messages import *
async def main():
    link = Channel(socket.socket(fileno=int(sys.argv[1])), ToWorker)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run_writer)
        await live(link)
"""


def pretender(*lines: str) -> tuple[str, ...]:
    """A command for a worker whose life is these lines: `link` is a Channel whose writer runs."""
    life = "".join(f"    {line}\n" for line in lines)
    return (sys.executable, "-P", "-c", f"{PRELUDE}async def live(link):\n{life}trio.run(main)\n")


class Origin:
    """A backend that waits for `free` and then answers every request with its name."""

    def __init__(self, name: bytes, slot: int, cell: int) -> None:
        self.name = name
        self.free = trio.Event()
        self.free.set()
        self.asked = 0
        sock = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self.view = BackendView(BackendId("web", slot, 1), Address("127.0.0.1", sock.getsockname()[1]), cell)

    def hold(self) -> None:
        self.free = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            while (data := await stream.receive_some()) and data.endswith(b"\r\n\r\n"):
                self.asked += data.count(b"\r\n\r\n")
                await self.free.wait()
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self.name), self.name))
        except trio.BrokenResourceError:
            return


class House:
    """Control's side of the data plane, as a test wants it."""

    def __init__(self, nursery: trio.Nursery, command: Sequence[str]) -> None:
        self.events: list[Event] = []
        self.refused: list[tuple[BackendId, str]] = []
        self.grid = Grid.create(ROWS, CELLS)
        self.book = CellBook(self.grid)
        self.sockets = Sockets(self.book)
        self.address = Address("127.0.0.1", free_port())
        self.mode = "http"
        self.listeners = self.bind(1)
        self.pool_cell = self.book.take()
        self.drain = DrainSettings()
        self.access_path: str | None = None
        self.epoch = 0
        self.tallies = Tallies()
        self.workers = Workers(
            self.events.append,
            self.grid,
            self.sockets,
            log=LogSettings(level="error", format="json"),
            on_unreachable=lambda id, why: self.refused.append((id, why)),
            command=command,
        )
        self.workers.on_stats = self.tallies.add
        self._nursery = nursery
        self._owned: list[trio.abc.AsyncResource] = []

    def bind(self, workers: int) -> tuple[ListenerView, ...]:
        self.listeners = self.sockets.bind([ListenerSettings("public", self.address, self.mode, pool="web")], workers)
        return self.listeners

    async def origin(self, name: bytes = b"one", slot: int = 1) -> Origin:
        origin = Origin(name, slot, self.book.take())
        self._owned.append(origin.listener)
        self._nursery.start_soon(trio.serve_listeners, lambda stream: origin.serve(stream), [origin.listener])
        await trio.lowlevel.checkpoint()
        return origin

    def publish(self, *backends: BackendView) -> int:
        self.epoch += 1
        pool = PoolView(
            "web", self.pool_cell, backends, 1, "least_conn", None, PoolTimeouts(), PoolLimits(), self.drain, 2
        )
        table = RoutingTable(self.epoch, "edge", self.listeners, (), (pool,))
        if self.access_path is not None:
            table = replace(table, access="json", access_path=self.access_path)
        self.workers.publish(table)
        return self.epoch

    async def serve(self, *backends: BackendView, workers: int = 1) -> None:
        """Workers that have applied a table with these backends."""
        self.bind(workers)
        self.publish(*backends)
        self.workers.resize(workers)
        await self.wait_serving(workers)

    async def wait_serving(self, count: int, *, without: Sequence[int] = ()) -> list[int]:
        """Wait until `count` workers, none of them in `without`, have applied their table; returns their pids."""
        while True:
            statuses = await self.workers.stats()
            pids = [status.pid for status in statuses if status.state == "serving" and status.pid not in without]
            if len(pids) == count:
                return pids
            await trio.sleep(0.02)

    def total(self, cell: int, counter: Counter) -> int:
        return self.grid.sum(cell, counter)

    def saw(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_saw(self, kind: type[Event], count: int = 1) -> list[Event]:
        await until(lambda: len(self.saw(kind)) >= count)
        return self.saw(kind)

    # As a client

    async def connect(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(self.address.host, self.address.port)
        self._owned.append(stream)
        return stream

    async def ask(self, stream: trio.SocketStream | None = None) -> bytes:
        """The body of an answer; b"" if the connection ends without one."""
        stream = stream or await self.connect()
        await stream.send_all(REQUEST)
        return await answer(stream)

    async def close(self) -> None:
        for resource in self._owned:
            await trio.aclose_forcefully(resource)
        self.sockets.close()
        self.grid.close()


async def answer(stream: trio.SocketStream) -> bytes:
    data = b""
    while not (b"\r\n\r\n" in data and data.partition(b"\r\n\r\n")[2]):
        try:
            more = await stream.receive_some()
        except trio.BrokenResourceError:
            return b""
        if not more:
            return b""
        data += more
    return data.partition(b"\r\n\r\n")[2]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for an act of a foreign process, which does not report it."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def send(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)


@asynccontextmanager
async def house(command: Sequence[str] = COMMAND) -> AsyncIterator[House]:
    """A running `Workers.run`. At the end everything is killed."""
    async with trio.open_nursery() as nursery:
        made = House(nursery, command)
        try:
            nursery.start_soon(made.workers.run)
            yield made
        finally:
            nursery.cancel_scope.cancel()
    await made.close()
