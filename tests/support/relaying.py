"""A relay between two peers that the test plays, on a running reactor. Real sockets, real time."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

import trio
import trio.testing

from lbproxy.telemetry.events import Event
from lbproxy.worker.io.reactor import Reactor
from lbproxy.worker.io.splice import Pipes
from lbproxy.worker.relay.relay import Relay

R = TypeVar("R", bound=Relay)


class Peer:
    """The far end of one of the relay's sockets."""

    def __init__(self, sock: socket.socket) -> None:
        self.plain = sock
        self.sock = trio.socket.from_stdlib_socket(sock)

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await self.sock.send(view) :]

    def fill(self, limit: int = 1 << 26) -> int:
        """Send until the kernel takes no more. Returns the number of bytes sent."""
        sent = 0
        with suppress(OSError):
            while sent < limit:
                sent += self.plain.send(bytes(1 << 16))
        return sent

    async def receive(self, count: int) -> bytes:
        """Receive exactly `count` bytes, or fewer at the end."""
        data = bytearray()
        while len(data) < count and (more := await self.sock.recv(min(count - len(data), 1 << 16))):
            data += more
        return bytes(data)

    async def rest(self) -> bytes:
        """Receive everything until the end."""
        return await self.receive(1 << 40)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()


class Relayed(Generic[R]):
    """One relay of a rig. `ended` is set when it has said that it is over."""

    def __init__(self, client: Peer, backend: Peer) -> None:
        self.client = client
        self.backend = backend
        self.ended = trio.Event()
        self.ends = 0
        self.relay: R

    def on_end(self, relay: R) -> None:
        assert relay is self.relay
        assert relay.client.sock.fileno() == relay.backend.sock.fileno() == -1
        self.ends += 1
        self.ended.set()


class Rig:
    """A reactor that runs, and the relays on it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reactor = Reactor(self.events.append)
        self._peers: list[Peer] = []
        self._relays: list[Relay] = []

    def relay(self, kind: type[R], *, tcp: bool = True, stall_s: float = 5.0, pipes: Pipes | None = None) -> Relayed[R]:
        """Make a relay without starting it."""
        client, client_sock = pair(tcp)
        backend, backend_sock = pair(tcp)
        relayed: Relayed[R] = Relayed(Peer(client), Peer(backend))
        more = {} if pipes is None else {"pipes": pipes}
        relayed.relay = kind(self.reactor, client_sock, backend_sock, stall_s=stall_s, on_end=relayed.on_end, **more)
        self._peers += (relayed.client, relayed.backend)
        self._relays.append(relayed.relay)
        return relayed

    def add(self, relay: Relay) -> None:
        """A relay that a test has made itself."""
        self._relays.append(relay)

    def close(self) -> None:
        for relay in self._relays:
            relay.abort()
        for peer in self._peers:
            peer.sock.close()
        self.reactor.close()


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.reactor.run)
            await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            yield made
            nursery.cancel_scope.cancel()
    finally:
        made.close()


def pair(tcp: bool) -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection; both are non-blocking."""
    if tcp:
        with socket.create_server(("127.0.0.1", 0)) as server:
            left = socket.create_connection(server.getsockname())
            right = server.accept()[0]
        for sock in (left, right):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return left, right
