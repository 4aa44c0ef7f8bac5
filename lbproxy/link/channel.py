"""Messages and descriptors over a stream socketpair: a 4-byte length, then JSON. One writer, one reader.

Descriptors travel with the first bytes of their message (SCM_RIGHTS); the message says how many are its own.
"""

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import trio

from lbproxy.link.codec import LINK_VERSION, LinkBroken, decode, encode

FDS_A_SEND = 200  # the kernel takes 253
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
READ_BYTES = 64 * 1024
RIGHTS_BYTES = socket.CMSG_SPACE(FDS_A_SEND * array.array("i").itemsize)


class Closable(Protocol):
    """The owner of a descriptor: a socket, or anything that is closed when it is sent."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


Descriptor: TypeAlias = Closable | int  # a descriptor that goes with a message


class Channel:
    """One end of a link. `incoming` is the union of the messages that may arrive, `version` the other end's."""

    def __init__(self, sock: socket.socket, incoming: Any, version: int = LINK_VERSION) -> None:
        sock.setblocking(False)
        self.version = version
        self._sock = trio.socket.from_stdlib_socket(sock)
        self._incoming = incoming
        self._outbox: deque[tuple[bytes, tuple[int, ...], tuple[Descriptor, ...]]] = deque()
        self._posted = trio.Event()
        self._all_sent = trio.Event()
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def post(self, message: Any, fds: Sequence[int] = (), *, give: Sequence[Descriptor] = ()) -> None:
        """Send in the background, in order. The descriptors must stay open until sent: control keeps them anyway.

        `give`: descriptors that go with the message, too, and are closed here when they are sent.
        """
        data = encode(message, self.version)
        all_fds = (*fds, *(one if isinstance(one, int) else one.fileno() for one in give))
        self._outbox.append((struct.pack("!I", len(data)) + data, all_fds, tuple(give)))
        self._posted.set()

    async def run_writer(self) -> None:
        """Home of the one writer. Ends quietly when the other end is gone: the reader is told."""
        try:
            while True:
                while self._outbox:
                    await self._send(*self._outbox[0])
                    self._outbox.popleft()
                self._posted = trio.Event()
                self._all_sent.set()
                await self._posted.wait()
                self._all_sent = trio.Event()
        except OSError:
            self._drop_outbox()
            self._all_sent.set()

    @property
    def waiting(self) -> int:
        """How many messages are not sent yet."""
        return len(self._outbox)

    async def wait_sent(self) -> None:
        """Until the writer has sent every message, or the other end is gone."""
        while self._outbox:
            await self._all_sent.wait()

    async def _send(self, frame: bytes, fds: tuple[int, ...], given: tuple[Descriptor, ...]) -> None:
        view = memoryview(frame)
        for start in range(0, len(fds), FDS_A_SEND):
            batch = array.array("i", fds[start : start + FDS_A_SEND])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, batch.tobytes())]
            await self._sock.sendmsg([view[:1]], rights)
            view = view[1:]
        while view:
            view = view[await self._sock.send(view) :]
        _close(given)

    async def receive(self) -> Any | None:
        """The next message, or None when the other end is gone. Raises LinkBroken."""
        while True:
            if len(self._buffer) >= 4:
                (size,) = struct.unpack_from("!I", self._buffer)
                if size > MAX_MESSAGE_BYTES:
                    raise LinkBroken(f"a message of {size} bytes")
                if len(self._buffer) >= 4 + size:
                    data = bytes(self._buffer[4 : 4 + size])
                    del self._buffer[: 4 + size]
                    return decode(data, self._incoming)
            try:
                data, rights, flags, _ = await self._sock.recvmsg(READ_BYTES, RIGHTS_BYTES, socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:
                return None
            for level, kind, payload in rights:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    received = array.array("i")
                    received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                    self._fds.extend(received)
            if flags & socket.MSG_CTRUNC:  # those of the next message must not be taken for the ones that are missing
                raise LinkBroken("descriptors were lost: this process has no room for them")
            if not data:
                return None
            self._buffer += data

    def take_fds(self, count: int) -> list[int]:
        """The descriptors of the message just received. Raises LinkBroken if fewer came."""
        if count > len(self._fds):
            raise LinkBroken(f"{count} descriptors announced, {len(self._fds)} came")
        return [self._fds.popleft() for _ in range(count)]

    def hand_on(self) -> tuple[int, bytes, tuple[int, ...]]:
        """Its descriptor, the beginning of a message that has come, and the descriptors that came with it: for a
        channel that goes on elsewhere. No message may be waiting to be sent."""
        return self._sock.fileno(), bytes(self._buffer), tuple(self._fds)

    def take_over(self, buffer: bytes, fds: Sequence[int]) -> None:
        """Go on behind what another channel had received."""
        self._buffer, self._fds = bytearray(buffer), deque(fds)

    def close(self) -> None:
        """Close the channel and every received descriptor that was not taken."""
        self._sock.close()
        self._drop_outbox()
        while self._fds:
            os.close(self._fds.popleft())

    def _drop_outbox(self) -> None:
        while self._outbox:
            _, _, given = self._outbox.popleft()
            _close(given)


def _close(given: Iterable[Descriptor]) -> None:
    for one in given:
        if isinstance(one, int):
            os.close(one)
        else:
            one.close()
