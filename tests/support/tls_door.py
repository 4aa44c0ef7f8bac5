"""TLS in front of a backend that the test plays in plain text: what comes is decrypted and passed on, both ways.

async with tls_door(lb.backends[0].address, server_context(pem)) as door:
    lb.backends[0].address = replace(door.address, secure=True)
"""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from lbproxy.address import Address

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


def server_context(pem: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.minimum_version = context.maximum_version = version
    return context


class Door:
    def __init__(self, target: Address, context: ssl.SSLContext) -> None:
        self.names: list[str | None] = []  # that the clients asked for (SNI)
        self.resumed: list[bool] = []  # whether each handshake resumed a session
        self.broken = 0  # handshakes
        self._target = target
        self._context = context
        context.sni_callback = lambda sock, name, _: self.names.append(name)
        self.sock = trio.socket.from_stdlib_socket(socket.create_server(("127.0.0.1", 0), backlog=128))
        self.address = Address("127.0.0.1", self.sock.getsockname()[1], secure=True)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            with suppress(*BROKEN):
                while True:
                    client, _ = await self.sock.accept()
                    nursery.start_soon(self._serve, client)

    async def _serve(self, client: trio.socket.SocketType) -> None:
        stream = trio.SSLStream(trio.SocketStream(client), self._context, server_side=True)
        with client:
            try:
                await stream.do_handshake()
            except BROKEN:
                self.broken += 1
                return
            self.resumed.append(bool(stream.session_reused))
            plain = await trio.open_tcp_stream(self._target.host, self._target.port)
            with plain.socket:
                await self._relay(stream, plain)

    async def _relay(self, stream: "trio.SSLStream[trio.SocketStream]", plain: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, stream, plain, nursery.cancel_scope)
            await self._pump(plain, stream, nursery.cancel_scope)
        with trio.move_on_after(0.5), suppress(*BROKEN):  # the backend has ended: so does TLS, properly
            await stream.unwrap()

    async def _pump(self, source: trio.abc.Stream, target: trio.abc.Stream, scope: trio.CancelScope) -> None:
        with suppress(*BROKEN):
            while data := await source.receive_some(65536):
                await target.send_all(data)
        scope.cancel()


@asynccontextmanager
async def tls_door(target: Address, context: ssl.SSLContext) -> AsyncIterator[Door]:
    door = Door(target, context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.run)
        yield door
        door.sock.close()
        nursery.cancel_scope.cancel()
