"""A WebSocket client over HTTP/2 (RFC 8441): a stream of an Http2 client as the socket of support.ws.WebSocketEnd.

with http2(lb.port) as client:
    end = dial2(client, "/ws")
    end.send("hello")
    assert end.message() == "hello"
"""

import socket
from typing import Any

from wsproto.connection import ConnectionType

from support.http2 import Answer2, Http2
from support.ws import WebSocketEnd


def connect_fields(path: str, *fields: tuple[str, str], protocol: str = "websocket") -> list[tuple[str, str]]:
    """An extended CONNECT."""
    pseudo = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":authority", "test")]
    return [*pseudo, (":path", path), ("sec-websocket-version", "13"), *fields]


class StreamSocket:
    """What WebSocketEnd asks of a socket."""

    def __init__(self, client: Http2, stream: int) -> None:
        self.client = client
        self.stream = stream

    @property
    def answer(self) -> Answer2:
        return self.client.answers[self.stream]

    def sendall(self, data: bytes) -> None:
        self.client.send(self.stream, data)

    def recv(self, size: int) -> bytes:
        """b"" at END_STREAM. Raises ConnectionResetError at RST_STREAM."""
        answer = self.answer
        self.client.wait(lambda: answer.body or answer.over)
        if answer.body:
            data, answer.body = bytes(answer.body[:size]), answer.body[size:]
            return data
        if answer.reset is not None:
            raise ConnectionResetError(f"RST_STREAM {answer.reset}")
        return b""

    def shutdown(self, how: int) -> None:
        self.client.send(self.stream, b"", end=True)

    def close(self) -> None:
        """END_STREAM, unless the stream is over."""
        if self.answer.reset is None and not self.client.ended:
            self.shutdown(socket.SHUT_WR)

    def settimeout(self, timeout_s: float) -> None:
        pass

    def setsockopt(self, *what: Any) -> None:
        pass


def dial2(client: Http2, path: str = "/ws", *fields: tuple[str, str]) -> WebSocketEnd:
    """Open a WebSocket on a stream. Raises ConnectionError where it is not answered with 200."""
    client.wait(lambda: client.h2.remote_settings.enable_connect_protocol)
    stream = client.open(connect_fields(path, *fields), end=False)
    answer = client.head(stream)
    if answer.status != 200:
        raise ConnectionError(f"the upgrade was answered with {answer.status} {bytes(answer.body)!r}")
    return WebSocketEnd(StreamSocket(client, stream), ConnectionType.CLIENT)  # type: ignore[arg-type]
