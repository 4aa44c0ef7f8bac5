"""Backends that keep what they were sent, over HTTP/1.1 (read by h11) and over h2c (read by h2), each a strict reader.

with recording("http/1.1") as backend:
    ...  # a pool with targets = ["127.0.0.1:PORT"]
    assert backend.take() == [Seen(b"GET", b"/", b"a.example", {...})]
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11

from support.threaded_backend import ThreadedBackend

ANSWER = b"seen"


@dataclass(slots=True)
class Seen:
    """One request that was complete."""

    method: bytes
    target: bytes
    authority: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known == name]


class Recorder(ThreadedBackend):
    """One listening backend. `broken`: what a connection was sent that is no HTTP."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.broken: list[str] = []
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        super().__init__()

    def take(self) -> list[Seen]:
        with self._lock:
            seen, self._seen = self._seen, []
        return seen

    def _note(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)

    def serve(self, sock: socket.socket) -> None:
        if self.protocol == "http/1.1":
            self._serve_http1(sock)
        else:
            self._serve_http2(sock)

    def _serve_http1(self, sock: socket.socket) -> None:
        connection = h11.Connection(h11.SERVER)
        seen: Seen | None = None
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as exc:
                if "without sending complete" not in str(exc):  # a request that was given up
                    self.broken.append(str(exc))
                return
            if event is h11.NEED_DATA:
                connection.receive_data(sock.recv(65536))
            elif isinstance(event, h11.Request):
                fields = [(bytes(name), bytes(value)) for name, value in event.headers]
                host = next(value for name, value in fields if name == b"host")
                seen = Seen(bytes(event.method), bytes(event.target), host, fields)
            elif isinstance(event, h11.Data):
                assert seen is not None
                seen.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert seen is not None
                seen.trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
                self._note(seen)
                response = h11.Response(status_code=200, headers=[("content-length", str(len(ANSWER)))])
                body = b"" if seen.method == b"HEAD" else ANSWER
                parts = [
                    connection.send(response),
                    connection.send(h11.Data(body)),
                    connection.send(h11.EndOfMessage()),
                ]
                sock.sendall(b"".join(part for part in parts if part))
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
            else:
                return

    def _serve_http2(self, sock: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        streams: dict[int, Seen] = {}
        while True:
            if data := connection.data_to_send():
                sock.sendall(data)
            received = sock.recv(65536)
            if not received:
                return
            try:
                events = connection.receive_data(received)
            except h2.exceptions.ProtocolError as exc:
                self.broken.append(str(exc))
                return
            for event in events:
                self._follow(connection, streams, event)

    def _follow(self, connection: h2.connection.H2Connection, streams: dict[int, Seen], event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            pseudo = dict(fields)
            streams[event.stream_id] = Seen(
                pseudo[b":method"],
                pseudo[b":path"],
                pseudo[b":authority"],
                [one for one in fields if one[0][:1] != b":"],
            )
        elif isinstance(event, h2.events.DataReceived):
            streams[event.stream_id].body += event.data
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            streams[event.stream_id].trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            seen = streams.pop(event.stream_id)
            self._note(seen)
            head = [(":status", "200"), ("content-length", str(len(ANSWER)))]
            connection.send_headers(event.stream_id, head, end_stream=seen.method == b"HEAD")
            if seen.method != b"HEAD":
                connection.send_data(event.stream_id, ANSWER, end_stream=True)
        elif isinstance(event, h2.events.StreamReset):
            streams.pop(event.stream_id, None)


@contextlib.contextmanager
def recording(protocol: str) -> Iterator[Recorder]:
    with contextlib.closing(Recorder(protocol)) as backend:
        yield backend
