"""The client's end of TLS in tests, with what a peer needs of trio's socket. OpenSSL over memory, apart from lbproxy's
own socket: what that gets wrong must not be wrong here too.

The certificate is made once for each process of the suite.
"""

import os
import socket
import ssl
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import trio

from lbproxy.tls.contexts import Pair, ServerContexts
from lbproxy.tls.tls_socket import aside
from support.certificates import pem_file

RECORD_BYTES = 16 * 1024
aside()  # else a test would seem to leave its descriptors open


@cache
def pem() -> Path:
    """A self-signed certificate for a.example, and its key."""
    return pem_file(Path(tempfile.mkdtemp(prefix="lb-tls-")), "a.example", "localhost", "127.0.0.1")


def server_contexts() -> ServerContexts:
    fd = os.open(pem(), os.O_RDONLY)
    try:
        return ServerContexts([Pair(fd, fd, ("a.example",))])
    finally:
        os.close(fd)


@cache
def shared_contexts() -> ServerContexts:
    return server_contexts()


@cache
def client_context() -> ssl.SSLContext:
    """It verifies, and tells a cut connection from an end."""
    context = ssl.create_default_context(cafile=str(pem()))
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsPeerSocket:
    def __init__(self, sock: trio.socket.SocketType, context: ssl.SSLContext | None = None) -> None:
        self.plain = sock
        self._resets = False
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or client_context()).wrap_bio(self._in, self._out, server_hostname="a.example")

    async def handshake(self, before: bytes = b"") -> None:
        """`before`: goes out in front of the ClientHello, as it is. Raises OSError: also where the other side ends."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush(before)
                before = b""
                await self._fill()
            else:
                await self._flush()
                return

    async def send(self, data: Any) -> int:
        sent = self.tls.write(data[:RECORD_BYTES]) if len(data) else 0
        await self._flush()
        return sent

    async def recv(self, size: int) -> bytes:
        """b"" after close_notify. Raises ConnectionResetError, also at an end without one."""
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as exc:
                raise ConnectionResetError(str(exc)) from None

    async def _fill(self) -> None:
        if data := await self.plain.recv(1 << 16):
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self, before: bytes = b"") -> None:
        data = before + self._out.read()
        while data:
            data = data[await self.plain.send(data) :]

    def shutdown(self, how: int) -> None:
        """close_notify, then the plain end. Raises OSError."""
        self.say_end()
        self.plain.shutdown(socket.SHUT_WR)

    def say_end(self) -> None:
        """close_notify without the plain end. Raises OSError."""
        with suppress(ssl.SSLError):  # the peer's close_notify is not there
            self.tls.unwrap()
        self.plain._sock.send(self._out.read())  # type: ignore[attr-defined]

    def close(self) -> None:
        """With a close_notify, as far as the kernel takes it, unless it is to be a reset."""
        if self.fileno() >= 0 and not self._resets:
            with suppress(OSError):
                self.shutdown(socket.SHUT_WR)
        self.plain.close()

    def fileno(self) -> int:
        return self.plain.fileno()

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._resets = self._resets or option == socket.SO_LINGER
        self.plain.setsockopt(level, option, value)

    def getsockopt(self, *what: int) -> Any:
        return self.plain.getsockopt(*what)

    def getsockname(self) -> Any:
        return self.plain.getsockname()
