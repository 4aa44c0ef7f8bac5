"""The two lasting kinds of connection to the origin: a WebSocket, and a raw echo (for TCP mode).

Knows bytes in and bytes out. Sockets and time are origin.py's.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from frames import BINARY, CLOSE, FIN, PING, PONG, TEXT, accept_of, frame, pushed, whole_frames

Send = Callable[[bytes], None]


class Session(Protocol):
    over: bool  # what was sent is all: close when it is through

    def feed(self, data: bytes) -> bytes:
        """Take bytes; returns those that are not used yet."""

    def eof(self) -> None: ...


class WebSocket:
    """Echoes whole messages. A Close is answered with the number of messages sent, `last N`, and a Close."""

    def __init__(self, send: Send, key: bytes) -> None:
        self.over = False
        self._send = send
        self._said = 0
        self._closing = False
        self._parts: list[bytes] = []
        upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        send(upgrade + b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_of(key))

    def pushes(self, every_s: float) -> Iterator[float]:
        """Push a message at this interval."""
        while not self._closing:
            self._say(TEXT, pushed(self._said + 1))
            yield every_s

    def feed(self, data: bytes) -> bytes:
        frames, rest = whole_frames(data)
        for first, payload in frames:
            opcode = first & 0x0F
            if self._closing:
                continue
            if opcode == CLOSE:
                self._send(frame(FIN | TEXT, b"last %d" % self._said) + frame(FIN | CLOSE, payload[:2]))
                self._closing = self.over = True
            elif opcode == PING:
                self._send(frame(FIN | PONG, payload))
            elif opcode != PONG:
                self._parts.append(payload)
                if first & FIN:
                    self._say(BINARY, b"".join(self._parts))
                    self._parts.clear()
        return rest

    def _say(self, opcode: int, payload: bytes) -> None:
        self._said += 1
        self._send(frame(FIN | opcode, payload))

    def eof(self) -> None:
        self._closing = self.over = True


class RawEcho:
    """Returns every byte until the client has ended its side."""

    def __init__(self, send: Send) -> None:
        self.over = False
        self._send = send

    def feed(self, data: bytes) -> bytes:
        self._send(data)
        return b""

    def eof(self) -> None:
        self.over = True
