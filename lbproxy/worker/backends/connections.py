"""Connections to backends: made, kept for a moment, used again. Belongs to no lane.

Knows addresses and sockets; nothing of exchanges, leases or tables. An idle connection stays on the reactor: when its
backend closes it, or says something unasked, it is dropped at once. It is used again only while it is younger than the
pool's `keepalive`.
"""

import errno
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.model import BackendView
from lbproxy.wire.head_cache import CachedResponseHead
from lbproxy.worker.io.reactor import READ, Reactor
from lbproxy.worker.io.read_size import RECV_BYTES
from lbproxy.worker.io.stream import ByteStream, SocketStream

SWEEP_S = 0.25  # not more often
CROWDED_S = 0.01
IDLE_PER_BACKEND = 4096  # the time limit is what bounds them: as many as worked within it
IN_PROGRESS = frozenset((0, errno.EINPROGRESS))


class ConnectFailed(LbproxyError):
    """Nobody listens there, or not in time. Nothing was sent."""


class ConnectTimedOut(ConnectFailed):
    """Nobody has refused: perhaps the accept queue is full."""


class Crowded(ConnectFailed):
    """A unix socket whose queue is full for the moment: somebody does listen."""


class Owner(Protocol):
    def on_reply(self, connection: "BackendConnection") -> None: ...
    def abort(self) -> None: ...


class BackendConnection:
    """A connection and what came on it that nobody has read yet.

    Where a test has only a stream there is no `sock`, and `fd` is -1.
    """

    __slots__ = (
        "_keeper",
        "_poll",
        "_stream",
        "backend",
        "buffer",
        "fd",
        "idle_since",
        "is_reset",
        "owner",
        "raw",
        "recv_bytes",
        "reply",
        "reused",
        "sock",
    )

    def __init__(self, backend: BackendView, sock: socket.socket | None, stream: ByteStream | None = None) -> None:
        self.backend = backend
        self.fd = -1
        if sock is not None:
            self.sock = sock
            self.fd = sock.fileno()
        self.buffer = b""
        self.reused = False
        self.is_reset = False  # its far end has not read all that was sent
        self.idle_since = 0.0
        self._stream = stream
        self._poll: select.poll | None = None
        self._keeper: BackendConnections | None = None  # who had it last while it was idle
        self.owner: Owner | None = None  # the exchange of the express lane that waits for an answer
        # The express lane's memory: heads of one backend mostly repeat.
        self.raw = b""  # the last one, as it came
        self.reply: CachedResponseHead | None = None  # once it has repeated
        self.recv_bytes = RECV_BYTES

    @property
    def stream(self) -> ByteStream:
        """For the task lane."""
        if self._stream is None:
            self._stream = SocketStream(self.sock)
        return self._stream

    def is_silent(self) -> bool:
        """Neither bytes nor an end are waiting."""
        if self._poll is None:
            if self.fd < 0:
                return True
            self._poll = select.poll()
            self._poll.register(self.fd, select.POLLIN | select.POLLRDHUP)
        return not self._poll.poll(0)

    def on_ready(self, mask: int) -> None:
        """An answer; or, while it is idle, its end or something unasked: then it is not used again."""
        owner = self.owner
        if owner is not None:
            try:
                owner.on_reply(self)
            except Exception:
                self.owner = owner  # it may have let go of us before: abort() ends it all the same
                raise
        elif self._keeper is not None:
            self._keeper.drop(self)

    def abort(self) -> None:
        """A mistake of ours: the reactor calls this for whoever made it."""
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.abort()

    def close(self) -> None:
        self.owner = None
        if self._stream is not None:
            self._stream.close()
        elif self.fd >= 0:
            self.sock.close()


class BackendConnections:
    """The idle connections of one worker, per backend, youngest used first."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._idle: dict[int, deque[BackendConnection]] = {}  # by the backend's cell: its id is slow to hash
        self._unshared: frozenset[int] = frozenset()  # cells
        self.keep: Callable[[BackendConnection], None] = self._keep
        self.on_first_idle: Callable[[], None] = _nobody_sweeps  # a backend has its first one: sweep from time to time

    def take(self, backend: BackendView, keepalive_s: float) -> BackendConnection | None:
        """An idle connection that is still good, or None. It is still registered with the reactor: see `leave`."""
        idle = self._idle.get(backend.cell)
        if not idle:
            return None
        connection = idle.pop()
        if self._reactor.now - connection.idle_since < keepalive_s:
            return connection
        idle.append(connection)  # the youngest is too old: so are all
        self.forget(backend)
        return None

    def take_checked(self, backend: BackendView, keepalive_s: float) -> BackendConnection | None:
        """Same as `take`, for a task: off the reactor, and looked at for an end once more: no event tells."""
        while (connection := self.take(backend, keepalive_s)) is not None:
            self._reactor.unregister(connection.fd)
            if connection.is_silent():
                return connection
            connection.close()
        return None

    def share(self, backends: Iterable[BackendView]) -> None:
        """The backends of a new table. Connections that begin with a PROXY header are kept for no other client.

        From the first such backend on, each connection is looked at before it is kept; until then that costs nothing.
        """
        unshared = frozenset(backend.cell for backend in backends if backend.send_proxy)
        for cell in unshared - self._unshared:
            self._forget(cell)
        self._unshared = unshared
        if unshared:
            self.keep = self._keep_if_shared

    def _keep_if_shared(self, connection: BackendConnection) -> None:
        """A connection is as the table said when it was made; its backend may have changed since."""
        if connection.backend.send_proxy or connection.backend.cell in self._unshared:
            self._close(connection)
        else:
            self._keep(connection)

    def give_back(self, connection: BackendConnection) -> None:
        """Same as `keep`, for a connection that the reactor does not know."""
        if connection.fd >= 0:
            self._reactor.register_backend(connection.fd, READ, connection)
        self.keep(connection)

    def _keep(self, connection: BackendConnection) -> None:
        """For the next request. The caller vouches that the last exchange on it is complete, and that it is its own
        handler."""
        cell = connection.backend.cell
        idle = self._idle.get(cell)
        if idle is None:
            idle = self._idle[cell] = deque()
            self.on_first_idle()
        elif len(idle) >= IDLE_PER_BACKEND:
            self.drop(idle[0])
        connection.owner = None
        connection.idle_since = self._reactor.now
        connection._keeper = self
        connection.reused = True
        idle.append(connection)

    def drop(self, connection: BackendConnection) -> None:
        """An idle one is closed."""
        self._idle[connection.backend.cell].remove(connection)
        self._close(connection)

    def forget(self, backend: BackendView) -> None:
        """The backend has left the table: its idle connections are closed."""
        self._forget(backend.cell)

    def _forget(self, cell: int) -> None:
        for connection in self._idle.pop(cell, ()):
            self._close(connection)

    def sweep(self, keepalive_s: dict[str, float]) -> float | None:
        """Close what has been idle for longer than its pool allows, so that no descriptor waits for a next request.

        Returns in how many seconds there may be something again; None: when there is a first idle one.
        """
        now = trio.current_time()
        pauses = []
        for cell, idle in list(self._idle.items()):
            kept_s = keepalive_s.get(idle[0].backend.id.pool, 0.0) if idle else 0.0
            while idle and now - idle[0].idle_since >= kept_s:
                self._close(idle.popleft())
            if idle:
                pauses.append(idle[0].idle_since + kept_s - now)
            else:
                del self._idle[cell]
        return max(min(pauses), SWEEP_S) if pauses else None

    def close(self) -> None:
        for idle in list(self._idle.values()):
            for connection in idle:
                self._close(connection)
        self._idle.clear()

    def _close(self, connection: BackendConnection) -> None:
        self._reactor.unregister(connection.fd)
        connection.close()


def _nobody_sweeps() -> None:
    pass


async def connect(backend: BackendView, connect_s: float) -> BackendConnection:
    """A fresh connection. Raises ConnectFailed, or ConnectTimedOut."""
    with trio.move_on_after(connect_s):
        return BackendConnection(backend, await open_socket(backend.address))
    raise ConnectTimedOut(f"{backend.address} did not accept a connection within {connect_s:g}s")


def begin_connect(address: Address) -> socket.socket | None:
    """A non-blocking socket that is connected or about to be; None where that needs a task (a handshake of TLS).

    Raises ConnectFailed, or Crowded, which may pass.
    """
    return None if address.secure else begin_plain(address)


def begin_plain(address: Address) -> socket.socket:
    """Same as begin_connect, but a secure address gets the connection under its TLS."""
    family = socket.AF_UNIX if address.path is not None else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as exc:
        raise ConnectFailed(f"{address}: {_reason(exc)}") from exc
    if address.path is not None:
        code = sock.connect_ex(address.path)
    else:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            code = sock.connect_ex((address.host or "127.0.0.1", address.port))
        except OSError as exc:  # no address: control looks names up before they come here
            sock.close()
            raise ConnectFailed(f"{address}: {_reason(exc)}") from exc
    if code not in IN_PROGRESS:
        sock.close()
        if code == errno.EAGAIN:
            raise Crowded(f"{address}: its queue is full")
        raise ConnectFailed(f"{address}: {errno.errorcode.get(code, code)}")
    return sock


def finish_connect(sock: socket.socket, address: Address) -> bool:
    """Does it stand? False: not yet, ask again when the socket is writable. Raises ConnectFailed; the socket stays the
    caller's."""
    try:
        # Nothing is sent. It asks for the error and for the peer in one call, and is at once answered where connect()
        # did all there was to do, as on loopback.
        sock.send(b"")
        # Backends that lbproxy starts have ports below the ephemeral range: they save this question (1 us).
        if address.port >= EPHEMERAL_FROM and address.path is None and _is_connected_to_itself(sock, address.port):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
    except BlockingIOError:
        return False
    except OSError as exc:
        raise ConnectFailed(f"{address}: {errno.errorcode.get(exc.errno or 0, str(exc))}") from exc
    return True


def _first_ephemeral_port() -> int:
    """The kernel gives outgoing connections no port below this one. Read once per process."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


EPHEMERAL_FROM = _first_ephemeral_port()


def _is_connected_to_itself(sock: socket.socket, port: int) -> bool:
    """A connection to a port of the ephemeral range without a listener may be given that very port."""
    name = sock.getsockname()
    return bool(name[1] == port and name == sock.getpeername())


async def open_socket(address: Address) -> socket.socket:
    """A socket that is connected. Raises ConnectFailed."""
    while True:
        try:
            sock = begin_plain(address)
            break
        except Crowded:
            await trio.sleep(CROWDED_S)  # nobody tells when there is room in the queue of a unix socket
    try:
        await trio.lowlevel.wait_writable(sock)
        while not finish_connect(sock, address):  # it is gone again, and the next look says why
            await trio.lowlevel.wait_writable(sock)
    except BaseException:
        trio.lowlevel.notify_closing(sock)
        sock.close()
        raise
    return sock


def is_silent(sock: socket.socket) -> bool:
    """Neither bytes nor an end are waiting. (A recv that only peeks says it by an exception: thrice the price.)"""
    if sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
    return not poll.poll(0)


def _reason(exc: OSError) -> str:
    return exc.strerror.lower() if exc.strerror else str(exc)
