"""One end of a TCP connection that a test plays, byte for byte. Knows just enough of HTTP to read it.

Written apart from lbproxy's own readers: what they get wrong must not be wrong here too.
"""

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from lbproxy.address import Address
from support.tls_peer import TlsPeerSocket


class Ended(Exception):
    """The other side has ended or reset the connection before the expected bytes had come."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was read. `raw` is all of it, framing included."""

    start: bytes
    fields: list[tuple[bytes, bytes]]  # lower-case names
    body: bytes = b""
    trailers: list[bytes] = field(default_factory=list)
    raw: bytes = b""

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def get(self, name: bytes) -> bytes | None:
        values = [value for known, value in self.fields if known == name]
        assert len(values) <= 1, f"{name!r} stands there more than once"
        return values[0] if values else None

    def names(self) -> list[bytes]:
        return [name for name, _ in self.fields]


class Peer:
    def __init__(self, sock: trio.socket.SocketType | TlsPeerSocket) -> None:
        self.sock: Any = sock
        self.received = bytearray()  # everything, ever
        self.buffer = bytearray()  # the bytes not read yet
        self.is_reset = False
        with suppress(OSError):  # a unix socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # Sending

    async def send(self, data: bytes) -> None:
        """Raises Ended."""
        view = memoryview(data)
        try:
            while view:
                view = view[await self.sock.send(view) :]
        except (OSError, trio.ClosedResourceError):
            raise Ended("it does not take more") from None

    async def dribble(self, data: bytes, step: int = 1) -> None:
        """Send in pieces; each is read by the other side before the next one is sent. Raises Ended."""
        for at in range(0, len(data), step):
            await self.send(data[at : at + step])
            for _ in range(3):
                await trio.lowlevel.checkpoint()

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # Receiving

    async def more(self) -> bool:
        """Read once more. False at the end; `is_reset` tells which kind of end."""
        try:
            data = await self.sock.recv(1 << 16)
        except ConnectionResetError:
            self.is_reset = True
            return False
        except (OSError, trio.ClosedResourceError):
            return False
        self.received += data
        self.buffer += data
        return bool(data)

    async def until(self, mark: bytes) -> bytes:
        """Read up to and including `mark`. Raises Ended."""
        start = 0
        while (at := self.buffer.find(mark, start)) < 0:
            start = max(0, len(self.buffer) - len(mark))
            if not await self.more():
                raise Ended(f"before {mark!r}, behind {bytes(self.buffer[-80:])!r}")
        return self._take(at + len(mark))

    async def exactly(self, count: int) -> bytes:
        """Raises Ended."""
        while len(self.buffer) < count:
            if not await self.more():
                raise Ended(f"{count - len(self.buffer)} bytes are missing")
        return self._take(count)

    async def rest(self) -> bytes:
        """Wait until the other side has ended."""
        while await self.more():
            pass
        return self._take(len(self.buffer))

    async def wait_ended(self) -> None:
        await self.rest()

    def _take(self, count: int) -> bytes:
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    async def head(self) -> Message:
        """Read a head of either kind. Raises Ended."""
        return _parsed(await self.until(b"\r\n\r\n"))

    async def request(self) -> Message:
        """Read a request with its body. Raises Ended."""
        head = await self.head()
        return await self._with_body(head, until_end=False)

    async def response(self, method: bytes = b"GET") -> Message:
        """The next response, interim ones included. Raises Ended if it is cut short."""
        head = await self.head()
        if head.status < 200 or head.status in (204, 304) or method == b"HEAD":
            return head
        return await self._with_body(head, until_end=True)

    async def answer(self, method: bytes = b"GET") -> Message:
        """The next final response."""
        while (response := await self.response(method)).status < 200:
            pass
        return response

    async def _with_body(self, head: Message, *, until_end: bool) -> Message:
        length, coding = head.get(b"content-length"), head.get(b"transfer-encoding")
        assert length is None or coding is None, "two framings"
        if length is not None:
            body = await self.exactly(int(length))
            return Message(head.start, head.fields, body, raw=head.raw + body)
        if coding is not None:
            assert coding == b"chunked"
            return await self._chunks(head)
        if not until_end:
            return head
        body = await self.rest()
        if self.is_reset:
            raise Ended("reset in a body that ends with the connection")
        return Message(head.start, head.fields, body, raw=head.raw + body)

    async def _chunks(self, head: Message) -> Message:
        raw, body = [head.raw], []
        while True:
            line = await self.until(b"\r\n")
            assert line[:-2].strip(b"0123456789abcdef") == b"", f"a chunk size that is not plain: {line!r}"
            raw.append(line)
            size = int(line, 16)
            if not size:
                break
            raw.append(await self.exactly(size + 2))
            assert raw[-1].endswith(b"\r\n")
            body.append(raw[-1][:-2])
        trailers = []
        while (line := await self.until(b"\r\n")) != b"\r\n":
            raw.append(line)
            trailers.append(line[:-2])
        raw.append(line)
        return Message(head.start, head.fields, b"".join(body), trailers, b"".join(raw))


def _parsed(raw: bytes) -> Message:
    start, *lines = raw[:-4].split(b"\r\n")
    assert b"\n" not in raw.replace(b"\r\n", b"")
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        assert colon, f"no colon in {line!r}"
        fields.append((name.lower(), value.strip(b" ")))
    return Message(start, fields, raw=raw)


async def connect(address: Address, *, receive_bytes: int = 0, tls: bool = False, before: bytes = b"") -> Peer:
    """Connect a peer. `receive_bytes`: the receive buffer of its kernel; 0: the default. `before`: sent first, in
    plain, and with `tls` together with the ClientHello."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await sock.connect((address.host, address.port))
    if not tls:
        await sock.send(before)
        return Peer(sock)
    secured = TlsPeerSocket(sock)
    await secured.handshake(before)
    return Peer(secured)
