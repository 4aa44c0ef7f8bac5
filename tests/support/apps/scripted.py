"""A backend in the test's own process that sends exactly the given bytes and records the bytes it receives.

with scripted(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nabc") as backend:
    ...  # targets = ["127.0.0.1:{backend.port}"]
assert backend.received == [b"GET / HTTP/1.1\\r\\n..."]
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Behaviour = Callable[["Peer"], None]


class Peer:
    """One connection to the backend. All of this blocks; an end of file or a reset ends the behaviour."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()

    def read_head(self) -> bytes:
        """Wait for the end of one more head; returns it."""
        start = len(self.received)
        while (end := self.received.find(b"\r\n\r\n", start)) < 0:
            self._read()
        return bytes(self.received[start : end + 4])

    def read(self, size: int) -> bytes:
        """Wait until `size` bytes have come in all."""
        while len(self.received) < size:
            self._read()
        return bytes(self.received[:size])

    def wait_closed(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._read()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _read(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the other side has closed")
        self.received += data


@dataclass(slots=True)
class Scripted:
    port: int
    peers: list[Peer] = field(default_factory=list)

    @property
    def received(self) -> list[bytes]:
        """The bytes of each connection that sent any; probes only connect."""
        return [bytes(peer.received) for peer in self.peers if peer.received]


def answering(answer: bytes) -> Behaviour:
    """Each head is answered with these bytes."""

    def behave(peer: Peer) -> None:
        while True:
            peer.read_head()
            peer.send(answer)

    return behave


@contextlib.contextmanager
def scripted(script: bytes | Behaviour, port: int = 0) -> Iterator[Scripted]:
    """A backend on 127.0.0.1 that runs `script` on each connection, in a thread of its own; bytes: `answering`."""
    behave = answering(script) if isinstance(script, bytes) else script
    threads: list[threading.Thread] = []

    def serve_one(peer: Peer) -> None:
        with peer.sock, contextlib.suppress(OSError):
            behave(peer)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                backend.peers.append(Peer(sock))
                threads.append(threading.Thread(target=serve_one, args=(backend.peers[-1],)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", port), backlog=1000) as listener:
        backend = Scripted(listener.getsockname()[1])
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield backend
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for peer in backend.peers:
                with contextlib.suppress(OSError):
                    peer.sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
