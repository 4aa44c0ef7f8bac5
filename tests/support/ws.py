"""Either end of a WebSocket over a blocking socket, read by wsproto, and frames written by hand.

end = dial(lb.port, "/ws?push=0.005")
heard = end.follow()                  # until the end of the connection; a Close is answered
assert heard.closes == [(1001, "going away")]
"""

import base64
import hashlib
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, Message, Ping, Pong

PATIENCE_S = 10.0
CLIENT_MASK = b"\x1f\x2e\x3d\x4c"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes = b"", length: int | None = None
) -> bytes:
    """One frame; `length` lies about its payload's."""
    size = len(payload) if length is None else length
    masked = 0x80 if mask else 0
    first = (0x80 if fin else 0) | opcode
    if size < 126:
        head = struct.pack("!BB", first, masked | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    if mask:
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return head + mask + payload


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


def upgrade_request(path: str = "/ws", *fields: str, key: str = "") -> bytes:
    key = key or base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: test",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def accept_of(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def switching(request: bytes) -> bytes:
    """The 101 that answers this request."""
    found = re.search(rb"\r\nsec-websocket-key: *(\S+)\r\n", request, re.IGNORECASE)
    assert found, request
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + accept_of(found[1]) + b"\r\n\r\n"
    )


@dataclass(slots=True)
class Heard:
    """The messages that one end has received, from the first frame to the end of the connection."""

    messages: list[str | bytes] = field(default_factory=list)
    closes: list[tuple[int, str]] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    behind_close: list[object] = field(default_factory=list)  # must stay empty
    unfinished: bool = False  # the last message is not whole
    closed_at: float = 0.0  # time.monotonic() of the Close
    ended_at: float = 0.0
    reset: bool = False


class WebSocketEnd:
    def __init__(self, sock: socket.socket, kind: ConnectionType, early: bytes = b"") -> None:
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.heard = Heard()
        self.writing = threading.Lock()
        self._connection = Connection(kind, trailing_data=early)
        self._early = bool(early)  # bytes that came with the handshake, not read yet
        self._kind = kind
        self._part: list[str | bytes] = []
        self._taken = 0  # messages that message() has returned

    # -- sending

    def send(self, data: str | bytes) -> None:
        opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        self.send_frame(opcode, payload)

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, length: int | None = None) -> None:
        mask = CLIENT_MASK if self._kind is ConnectionType.CLIENT else b""
        self.send_raw(frame(opcode, payload, fin=fin, mask=mask, length=length))

    def send_raw(self, data: bytes) -> None:
        with self.writing:
            self.sock.sendall(data)

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a Close."""
        self.send_frame(CLOSE, b"" if code is None else close_payload(code, reason))

    # -- receiving

    def follow(self, *, answer: bool = True) -> Heard:
        """Read to the end of the connection. The first Close is answered with the same code, pings with pongs."""
        while self.step(answer=answer):
            pass
        return self.heard

    def follow_to_close(self) -> Heard:
        """Read until a Close has come; it is not answered."""
        while not self.heard.closes and self.step(answer=False):
            pass
        return self.heard

    def message(self) -> str | bytes:
        """The next whole message."""
        while len(self.heard.messages) == self._taken:
            assert self.step(), f"the connection ended: {self.heard}"
        self._taken += 1
        return self.heard.messages[self._taken - 1]

    def step(self, *, answer: bool = True) -> bool:
        """Read once and handle the frames. False at the end."""
        heard = self.heard
        if self._early:
            self._early = False
            for event in self._connection.events():
                self._take(event, answer=answer)
            return True
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError:
            heard.reset = True
            data = b""
        if heard.closes and data:
            heard.behind_close.append(data)
        elif data:
            self._connection.receive_data(data)
        for event in self._connection.events():
            self._take(event, answer=answer)
        if not data:
            heard.ended_at = monotonic()
            heard.unfinished = bool(self._part)
            self.sock.close()
        return bool(data)

    def _take(self, event: Event, *, answer: bool) -> None:
        heard = self.heard
        if heard.closes:
            heard.behind_close.append(event)
        elif isinstance(event, Message):
            self._part.append(event.data if isinstance(event.data, str) else bytes(event.data))
            if event.message_finished:
                kind: str | bytes = "" if isinstance(event.data, str) else b""
                heard.messages.append(kind.join(self._part))  # type: ignore[arg-type]
                self._part.clear()
        elif isinstance(event, Ping):
            heard.pings.append(bytes(event.payload))
            if answer:
                self.send_frame(PONG, bytes(event.payload))
        elif isinstance(event, Pong):
            heard.pongs.append(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            heard.closes.append((int(event.code), event.reason or ""))
            heard.closed_at = monotonic()
            if answer:
                with suppress(OSError):
                    self.close(None if event.code == 1005 else int(event.code))
                    if self._kind is ConnectionType.SERVER:
                        self.sock.shutdown(socket.SHUT_WR)  # RFC 6455, 7.1.1: the server ends the connection first


def dial(port: int, path: str = "/ws", *fields: str, behind: bytes = b"") -> WebSocketEnd:
    """Connect a client. `behind`: bytes sent in one packet with the request."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    try:
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(upgrade_request(path, *fields, key=key) + behind)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            more = sock.recv(65536)
            if not more:
                raise ConnectionError(f"the upgrade was answered with {data!r}")
            data += more
        head = data[: end + 2]
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"the upgrade was answered with {data!r}")
        assert b"\r\nSec-WebSocket-Accept: " + accept_of(key.encode()) + b"\r\n" in head, head
        return WebSocketEnd(sock, ConnectionType.CLIENT, data[end + 4 :])
    except BaseException:
        sock.close()
        raise


def serve_upgrade(sock: socket.socket, head: bytes, early: bytes = b"", behind: bytes = b"") -> WebSocketEnd:
    """The server's end; `behind`: bytes sent in one packet with the 101."""
    sock.sendall(switching(head) + behind)
    return WebSocketEnd(sock, ConnectionType.SERVER, early)


@contextmanager
def following(*ends: WebSocketEnd) -> Iterator[None]:
    """Each end is read by a thread of its own and answers; behind the block all have come to their end."""
    threads = [threading.Thread(target=end.follow, daemon=True) for end in ends]
    for thread in threads:
        thread.start()
    try:
        yield
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a WebSocket did not end"
    finally:
        for end in ends:
            end.sock.close()
