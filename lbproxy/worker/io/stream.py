"""A byte stream as the task lane uses it: awaited reads, writes that never block.

`put` hands bytes to the kernel at once and keeps what did not fit, so a write cannot be cancelled half-way: what was
put is either sent or still in the outbox. Who puts, bounds: look at `pending` and `await flush()`.
"""

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Protocol

import trio

from lbproxy.errors import LbproxyError

READ_BYTES = 64 * 1024
EAGER_READS = 16  # reads that did not wait, before others get their turn
TURN_S = 0.005  # ... or so much time: a read of tiny chunks costs as much as a hundred others
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class StreamBroken(LbproxyError):
    """The other end reset the connection, or it failed otherwise."""


class StreamStalled(LbproxyError):
    """Nothing moved for as long as it was given."""


class ByteStream(Protocol):
    """What an exchange needs of a connection; sockets here, memory in tests."""

    @property
    def pending(self) -> int:
        """Bytes put and not yet sent."""

    async def receive(self) -> bytes:
        """Up to READ_BYTES; b"" at the end. Raises StreamBroken."""

    def put(self, data: bytes) -> None:
        """Raises StreamBroken."""

    async def flush(self, stall_s: float) -> None:
        """Until nothing is pending. Raises StreamBroken, or StreamStalled when nothing moved for `stall_s`."""

    def half_close(self) -> None: ...

    def close(self) -> None: ...

    def reset(self) -> None:
        """Close so that the peer cannot mistake it for a clean end."""


class SocketStream:
    """A ByteStream over a connected, non-blocking socket."""

    __slots__ = ("_eager", "_outbox", "_turn_ends", "read_bytes", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.read_bytes = READ_BYTES  # at most, at a time
        self._outbox = bytearray()
        self._eager = 0
        self._turn_ends = trio.current_time() + TURN_S

    @property
    def pending(self) -> int:
        return len(self._outbox)

    async def receive(self) -> bytes:
        if self._eager >= EAGER_READS or trio.current_time() >= self._turn_ends:
            try:
                await trio.lowlevel.checkpoint()  # before the read: what was read must not be lost to a cancellation
            finally:
                self._begin_turn()
        while True:
            try:
                data = self.sock.recv(self.read_bytes)
            except BlockingIOError:
                await self._wait(trio.lowlevel.wait_readable)
                self._begin_turn()
                continue
            except OSError as exc:
                raise StreamBroken(exc.strerror or str(exc)) from exc
            self._eager += 1
            return data

    def _begin_turn(self) -> None:
        self._eager = 0
        self._turn_ends = trio.current_time() + TURN_S

    def put(self, data: bytes) -> None:
        if not self._outbox:
            sent = self._send(data)
            if sent == len(data):
                return
            data = data[sent:]
        self._outbox += data

    async def flush(self, stall_s: float) -> None:
        while self._outbox:
            with trio.move_on_after(stall_s) as patience:
                await self._wait(trio.lowlevel.wait_writable)
            if patience.cancelled_caught:
                raise StreamStalled(f"nothing taken for {stall_s:g}s")
            del self._outbox[: self._send(self._outbox)]

    def half_close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # already gone: nothing left to close

    def close(self) -> None:
        trio.lowlevel.notify_closing(self.sock)
        self.sock.close()

    def reset(self) -> None:
        with contextlib.suppress(OSError):  # already gone
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close()

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise StreamBroken(exc.strerror or str(exc)) from exc

    async def _wait(self, wait: Callable[[socket.socket], object]) -> None:
        if self.sock.fileno() < 0:  # closed between two waits: trio would take it for a descriptor
            raise StreamBroken("closed on our side")
        try:
            await wait(self.sock)  # type: ignore[misc]
        except (trio.ClosedResourceError, OSError) as exc:
            raise StreamBroken("closed on our side") from exc
