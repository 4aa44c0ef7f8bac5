"""Plain connections in, TLS out: between tests that speak plain and an lbproxy whose listeners have TLS.

    python tls_bridge.py CERTIFICATE LISTEN:TARGET...

An end goes through as an end, a reset as a reset, and the client's address is kept. A process of its own, so that
the load of a test does not stop it. It ends when its standard input ends.
"""

import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

READ_BYTES = 64 * 1024
RESET = struct.pack("ii", 1, 0)
NAME = "localhost"


class Broken(Exception):
    """A side was reset, or ended without close_notify."""


class Secured:
    def __init__(self, sock: trio.socket.SocketType, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=NAME)

    async def handshake(self) -> None:
        await self._until_done(self._tls.do_handshake)

    async def _until_done(self, step: Callable[[], object]) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
                continue
            await self._flush()
            return

    async def receive(self) -> bytes:
        while True:
            try:
                return self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def end(self) -> None:
        with suppress(ssl.SSLError):  # the other side's close_notify is not there
            self._tls.unwrap()
        await self._flush()
        self.sock.shutdown(socket.SHUT_WR)

    async def _fill(self) -> None:
        if data := await self.sock.recv(READ_BYTES):
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self) -> None:
        await _send_all(self.sock, self._out.read())


async def _send_all(sock: trio.socket.SocketType, data: bytes) -> None:
    with memoryview(data) as view:
        sent = 0
        while sent < len(data):
            sent += await sock.send(view[sent:])


async def _bridge(client: trio.socket.SocketType, target: int, context: ssl.SSLContext) -> None:
    server = trio.socket.socket()
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, server:
        try:
            await server.bind((client.getpeername()[0], 0))
            await server.connect(("127.0.0.1", target))
            secured = Secured(server, context)
            await secured.handshake()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_up, client, secured)
                nursery.start_soon(_down, client, secured)
        except* (OSError, Broken):  # an SSLError is an OSError
            for sock in (client, server):
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def _up(client: trio.socket.SocketType, secured: Secured) -> None:
    while data := await client.recv(READ_BYTES):
        await secured.send(data)
    await secured.end()


async def _down(client: trio.socket.SocketType, secured: Secured) -> None:
    while data := await secured.receive():
        await _send_all(client, data)
    client.shutdown(socket.SHUT_WR)


async def _listen(port: int, target: int, context: ssl.SSLContext, started: Callable[[], Awaitable[None]]) -> None:
    listening = trio.socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await listening.bind(("127.0.0.1", port))
    listening.listen(4096)
    await started()
    async with trio.open_nursery() as nursery:
        while True:
            with suppress(OSError):
                client, _ = await listening.accept()
                nursery.start_soon(_bridge, client, target, context)


async def main(certificate: str, pairs: list[str]) -> None:
    context = ssl.create_default_context(cafile=certificate)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    up = 0

    async def started() -> None:
        nonlocal up
        up += 1
        if up == len(pairs):
            sys.stdout.write("up\n")
            sys.stdout.flush()
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for pair in pairs:
            port, target = map(int, pair.split(":"))
            nursery.start_soon(_listen, port, target, context, started)
        await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2:])
