"""Connections to backends: made, kept for a moment, used again. Belongs to no lane.

Knows addresses and sockets; nothing of HTTP, leases or tables. An idle connection is used again only while it is
younger than the pool's `keepalive` and has neither bytes nor an end waiting.
"""

import errno
import socket
from collections import deque

import trio

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.model import BackendId, BackendView
from lbproxy.worker.stream import ByteStream, SocketStream

SWEEP_S = 0.25
IDLE_PER_BACKEND = 256


class ConnectFailed(LbproxyError):
    """Nobody listens there, or not in time. Nothing was sent."""


class BackendConnection:
    """A connection and what came on it that nobody has read yet."""

    __slots__ = ("backend", "buffer", "idle_since", "reused", "stream")

    def __init__(self, backend: BackendId, stream: ByteStream) -> None:
        self.backend = backend
        self.stream = stream
        self.buffer = bytearray()
        self.reused = False
        self.idle_since = 0.0


class BackendConnections:
    """The idle connections of one worker, per backend, youngest used first."""

    def __init__(self) -> None:
        self._idle: dict[BackendId, deque[BackendConnection]] = {}

    def take(self, backend: BackendView, keepalive_s: float) -> BackendConnection | None:
        """An idle connection that is still good, or None."""
        idle = self._idle.get(backend.id)
        while idle:
            connection = idle.pop()
            if trio.current_time() - connection.idle_since < keepalive_s and _is_silent(connection.stream):
                connection.reused = True
                return connection
            connection.stream.close()
        return None

    async def connect(self, backend: BackendView, connect_s: float) -> BackendConnection:
        """A fresh connection. Raises ConnectFailed."""
        with trio.move_on_after(connect_s):
            return BackendConnection(backend.id, SocketStream(await open_socket(backend.address)))
        raise ConnectFailed(f"{backend.address} did not accept a connection within {connect_s:g}s")

    def give_back(self, connection: BackendConnection) -> None:
        """Keep it for the next request. The caller vouches that the last exchange on it is complete."""
        idle = self._idle.setdefault(connection.backend, deque())
        if len(idle) >= IDLE_PER_BACKEND:
            idle.popleft().stream.close()
        connection.idle_since = trio.current_time()
        idle.append(connection)

    def forget(self, backend: BackendId) -> None:
        """It has left the table: its idle connections are closed."""
        for connection in self._idle.pop(backend, ()):
            connection.stream.close()

    def sweep(self, keepalive_s: dict[str, float]) -> None:
        """Close what has been idle for longer than its pool allows, so that no descriptor waits for a next request."""
        now = trio.current_time()
        for backend, idle in list(self._idle.items()):
            limit = keepalive_s.get(backend.pool, 0.0)
            while idle and now - idle[0].idle_since >= limit:
                idle.popleft().stream.close()
            if not idle:
                del self._idle[backend]

    def close(self) -> None:
        for backend in list(self._idle):
            self.forget(backend)


async def open_socket(address: Address) -> socket.socket:
    """A connected, non-blocking socket. Raises ConnectFailed."""
    family = socket.AF_UNIX if address.path is not None else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        if family == socket.AF_INET and not _is_numeric(address.host):
            stream = await trio.open_tcp_stream(address.host, address.port)
            return _detach(stream.socket)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as exc:
        raise ConnectFailed(f"{address}: {_reason(exc)}") from exc
    try:
        if address.path is None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await _connect(sock, address)
    except OSError as exc:
        sock.close()
        raise ConnectFailed(f"{address}: {_reason(exc)}") from exc
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(sock: socket.socket, address: Address) -> None:
    target = address.path if address.path is not None else (address.host or "127.0.0.1", address.port)
    code = sock.connect_ex(target)
    if code == errno.EINPROGRESS:
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, errno.errorcode.get(code, "error"))
    if address.path is None and sock.getsockname() == sock.getpeername():
        raise OSError(errno.ECONNREFUSED, "connected to itself: nobody listens there")


def _detach(sock: trio.socket.SocketType) -> socket.socket:
    plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    return plain


def _is_numeric(host: str) -> bool:
    return host == "" or host.replace(".", "").isdigit()


def _is_silent(stream: ByteStream) -> bool:
    """Neither bytes nor an end are waiting."""
    if not isinstance(stream, SocketStream):
        return True
    try:
        stream.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _reason(exc: OSError) -> str:
    return exc.strerror.lower() if exc.strerror else str(exc)
