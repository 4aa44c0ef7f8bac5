"""Accepting clients: one task per listening socket, one task per client connection.

Knows listeners, their limits and how they come and go with the table; nothing of what a client says. A socket that goes
away is accepted from until it is empty, then closed.
"""

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import trio

from lbproxy.link.grid import Counter, Grid
from lbproxy.model import ListenerView
from lbproxy.telemetry.events import AcceptPaused, AcceptResumed, Event
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.client import Client
from lbproxy.worker.stream import SocketStream

ACCEPT_BATCH = 32  # accepted in a row before others get their turn
PAUSE_S = 0.05  # out of descriptors, or at the limit: nobody tells us when another process has freed one
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class _Listening:
    """One of our listening sockets. Its settings may change while it is open."""

    __slots__ = ("leaving", "networks", "scope", "sock", "view")

    def __init__(self, view: ListenerView, sock: socket.socket) -> None:
        self.sock = sock
        self.leaving = False
        self.scope: trio.CancelScope | None = None  # set while it waits
        self.update(view)

    def update(self, view: ListenerView) -> None:
        self.view = view
        self.networks = [ip_network(network) for network in view.settings.trusted_proxies]

    def leave(self) -> None:
        self.leaving = True
        if self.scope is not None:
            self.scope.cancel()


class Acceptor:
    """`serve(client)` is run as a task for each client; its connection is counted until it returns."""

    def __init__(
        self, grid: Grid, row: int, emit: Callable[[Event], None], serve: Callable[[Client], Awaitable[None]]
    ) -> None:
        self._grid = grid
        self._row = row
        self._emit = emit
        self._serve = serve
        self._listening: dict[int, _Listening] = {}
        self.connections = 0

    def apply(self, nursery: trio.Nursery, views: Sequence[ListenerView], sockets: dict[int, socket.socket]) -> None:
        """The listeners of a new table. `sockets` are ours from now on, by listener key; doubles are closed."""
        for view in views:
            sock = sockets[view.key]
            known = self._listening.get(view.key)
            if known is not None:
                known.update(view)
                sock.close()
            else:
                listening = self._listening[view.key] = _Listening(view, sock)
                nursery.start_soon(self._accept, nursery, listening)
        present = {view.key for view in views}
        for key, listening in list(self._listening.items()):
            if key not in present:
                del self._listening[key]
                listening.leave()

    def leave_all(self) -> None:
        for listening in self._listening.values():
            listening.leave()
        self._listening.clear()

    async def _accept(self, nursery: trio.Nursery, listening: _Listening) -> None:
        taken = 0
        paused = False
        with listening.sock:
            while True:
                try:
                    if self._is_full(listening):
                        raise OSError(errno.EMFILE, "the listener's limit of connections is reached")
                    sock, peer = listening.sock.accept()
                except BlockingIOError:
                    if listening.leaving:
                        return
                    await self._wait(listening)
                    continue
                except OSError as exc:
                    if exc.errno in EXHAUSTED:
                        if not paused:
                            paused = True
                            self._emit(AcceptPaused(listening.view.settings.name, exc.strerror or str(exc)))
                        await trio.sleep(PAUSE_S)
                    continue  # else it is that client's trouble: reset while it was waiting
                if paused:
                    paused = False
                    self._emit(AcceptResumed(listening.view.settings.name))
                sock.setblocking(False)
                nursery.start_soon(
                    self._run, listening.view, Client(SocketStream(sock), listening.view, _facts(listening, peer))
                )
                taken += 1
                if taken % ACCEPT_BATCH == 0:
                    await trio.lowlevel.checkpoint()

    async def _wait(self, listening: _Listening) -> None:
        with trio.CancelScope() as listening.scope:
            await trio.lowlevel.wait_readable(listening.sock)
        listening.scope = None

    async def _run(self, view: ListenerView, client: Client) -> None:
        values, base = self._grid.values, self._grid.base(self._row, view.cell)
        values[base + Counter.CONNECTIONS] += 1
        values[base + Counter.ACCEPTED] += 1
        self.connections += 1
        try:
            await self._serve(client)
        finally:
            self.connections -= 1
            values[base + Counter.CONNECTIONS] -= 1

    def _is_full(self, listening: _Listening) -> bool:
        view = listening.view
        return self._grid.sum(view.cell, Counter.CONNECTIONS) >= view.settings.limits.connections


def _facts(listening: _Listening, peer: tuple[str, int] | str) -> ClientFacts:
    if isinstance(peer, str):
        return ClientFacts(b"", False, b"http")
    host = peer[0].removeprefix("::ffff:") if "." in peer[0] else peer[0].partition("%")[0]
    return ClientFacts(host.encode(), bool(listening.networks) and _is_in(host, listening.networks), b"http")


def _is_in(host: str, networks: list[IPv4Network | IPv6Network]) -> bool:
    address = ip_address(host)
    return any(address in network for network in networks)
