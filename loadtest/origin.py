"""A backend that costs next to nothing: one epoll, HTTP/1.1 keep-alive, no framework.

    /  /2k  /64k  /100m  /bytes?n=N      bodies of known length
    /chunked?n=20&bytes=1000             n chunks at once
    /sse?n=5&every=0.1                   events up to id n, then a proper end; goes on behind Last-Event-ID
    /slow?s=1                            an answer after s seconds
    /drip?n=30&every=0.1                 n blocks of 1,000 bytes, one at a time
    /ws?push=0.005                       WebSocket: echoes messages, and says something so often (origin_sessions.py)
    /raw                                 everything behind the head comes back as it is, until the client has ended
    /sum                                 POST, both framings: "LENGTH CRC32\\n" of the body
    /whoami  /healthz                    slot@generation and pid
    /count                               requests so far, this one included

On SIGTERM it stops listening, finishes what is in hand and exits 0. It trusts its client: it is no server
for the world.
"""

import argparse
import heapq
import os
import select
import signal
import socket
import zlib
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Self
from urllib.parse import parse_qsl

from origin_sessions import RawEcho, Session, WebSocket

BLOCK = 1 << 20
SIZES = {b"/2k": 2048, b"/64k": 65536, b"/100m": 100 << 20}
WHO = "{LBPROXY_SLOT}@{LBPROXY_GENERATION}".format_map({"LBPROXY_SLOT": "-", "LBPROXY_GENERATION": "-", **os.environ})
CHUNK_END = b"0\r\n\r\n"
DRIP = b"d" * 1000
WEBSOCKET_KEY = b"\r\nsec-websocket-key: "


def head(length: int | None, kind: bytes = b"text/plain", framing: bytes = b"Transfer-Encoding: chunked") -> bytes:
    """The head of a 200. `framing` stands in it where the length is not known."""
    if length is not None:
        framing = b"Content-Length: %d" % length
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n\r\n" % (kind, framing)


def answer(body: bytes) -> bytes:
    return head(len(body)) + body


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


SMALL = answer(b"Hello world\n")


class Origin:
    """The loop: sockets, deadlines, and the stop flag."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.later: list[tuple[float, int, Connection, Iterator[float]]] = []
        self.stopping = False
        self.requests = 0
        self.blocks = os.memfd_create("blocks")  # large bodies go out by sendfile
        os.write(self.blocks, b"lbproxy\n" * (BLOCK // 8))
        self.wakeup, waker = socket.socketpair()
        self.waker = waker
        for end in (self.wakeup, waker):
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno())
        signal.signal(signal.SIGTERM, lambda *_: None)
        self.epoll.register(listener, select.EPOLLIN)
        self.epoll.register(self.wakeup, select.EPOLLIN)

    def run(self) -> None:
        listening, waking = self.listener.fileno(), self.wakeup.fileno()
        while not self.stopping or self.connections:
            for fd, _ in self.epoll.poll(max(self.later[0][0] - monotonic(), 0) if self.later else -1):
                if fd == listening and not self.stopping:
                    self.accept(64)
                elif fd == waking:
                    self.stop()
                elif connection := self.connections.get(fd):
                    connection.ready()
            while self.later and self.later[0][0] <= monotonic():
                _, _, connection, steps = heapq.heappop(self.later)
                connection.step(steps)

    def accept(self, most: int) -> None:
        with suppress(BlockingIOError):
            for _ in range(most):
                sock, _ = self.listener.accept()
                connection = Connection(self, sock)
                self.connections[sock.fileno()] = connection
                self.epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)
                connection.ready()

    def stop(self) -> None:
        if not self.stopping:
            self.accept(100_000)  # clients in the accept queue are served
            self.epoll.unregister(self.listener)
            self.listener.close()
            self.epoll.unregister(self.wakeup)
            self.stopping = True
            for connection in list(self.connections.values()):
                if connection.idle:
                    connection.close()


class Connection:
    """One client. Its requests are answered one at a time; later bytes wait in `inbox`."""

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.origin, self.sock = origin, sock
        self.inbox, self.outbox = b"", b""
        self.blocks_left = 0  # of a large body, behind `outbox`
        self.answering = False  # an answer goes on later
        self.body: Body | None = None
        self.session: Session | None = None
        self.writing = False
        self.last = False  # the client wants the connection closed after this answer

    @property
    def busy(self) -> bool:
        return bool(self.outbox or self.blocks_left or self.answering or self.body or self.session)

    @property
    def idle(self) -> bool:
        return not self.busy and not self.inbox

    def ready(self) -> None:
        try:
            if self.outbox or self.blocks_left:
                self.flush()
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data and self.session is not None:
            self.session.eof()
        elif not data:
            self.close()
            return
        self.inbox += data
        self.requests()

    def requests(self) -> None:
        """Answer the requests in the inbox."""
        if self.session is not None:
            data, self.inbox = self.inbox, b""  # feed() sends, and may come back here
            self.inbox = self.session.feed(data) + self.inbox
            if self.session.over and not self.outbox:
                self.close()
            return
        while self.sock.fileno() >= 0 and not (self.outbox or self.blocks_left or self.answering):
            if self.body is None:
                raw, end, rest = self.inbox.partition(b"\r\n\r\n")
                if not end:
                    break
                self.inbox = rest
                self.request(raw)
            else:
                self.inbox = self.body.feed(self.inbox)
                if not self.body.done:
                    break
                told, self.body = self.body, None
                self.send(answer(b"%d %08x\n" % (told.size, told.crc)))
        if (self.last and not self.busy) or (self.origin.stopping and self.idle):
            self.close()

    def request(self, raw: bytes) -> None:
        self.origin.requests += 1
        method, target, rest = raw.split(b" ", 2)
        self.last = rest.startswith(b"HTTP/1.0") or b"\r\nconnection: close" in rest.lower()
        if target == b"/" and method == b"GET":
            self.send(SMALL)
            return
        path, _, query = target.partition(b"?")
        if method in (b"POST", b"PUT"):
            if b"100-continue" in raw.lower():
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.body = Body.of(raw)
            return
        values = dict(parse_qsl(query.decode()))
        size = SIZES.get(path, int(values.get("n", 0)) if path == b"/bytes" else -1)
        if size >= 0:
            self.blocks_left = 0 if method == b"HEAD" else size
            self.send(head(size, b"application/octet-stream"))
        elif path == b"/slow":
            self.step(self.slow(float(values.get("s", 1))))
        elif path == b"/drip":
            self.step(self.drip(int(values.get("n", 30)), float(values.get("every", 0.1))))
        elif path == b"/ws":
            self.websocket(raw, float(values.get("push", 0)))
        elif path == b"/raw":
            self.send(head(None, b"application/octet-stream", b"Connection: close"))
            self.session = RawEcho(self.send)
            self.requests()
        elif path == b"/sse":
            _, _, last = rest.lower().partition(b"\r\nlast-event-id:")
            first = int(last.split(b"\r\n")[0] or 0) + 1
            self.step(self.events(range(first, int(values.get("n", 5)) + 1), float(values.get("every", 0.1))))
        elif path == b"/chunked":
            part = chunk(b"c" * int(values.get("bytes", 1000)))
            self.send(head(None) + part * int(values.get("n", 20)) + CHUNK_END)
        elif path == b"/count":
            self.send(answer(b"%d\n" % self.origin.requests))
        else:
            whole = answer(f"{WHO} {os.getpid()}\n".encode())
            self.send(whole if method != b"HEAD" else whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")

    def slow(self, seconds: float) -> Iterator[float]:
        yield seconds
        self.send(answer(b"slept\n"))

    def drip(self, count: int, every_s: float) -> Iterator[float]:
        self.send(head(count * len(DRIP), b"application/octet-stream"))
        for _ in range(count):
            self.send(DRIP)
            yield every_s

    def websocket(self, raw: bytes, every_s: float) -> None:
        at = raw.lower().index(WEBSOCKET_KEY) + len(WEBSOCKET_KEY)
        self.session = session = WebSocket(self.send, raw[at:].partition(b"\r\n")[0].strip())
        if every_s:
            self.step(session.pushes(every_s))
        self.requests()

    def events(self, numbers: range, every_s: float) -> Iterator[float]:
        self.send(head(None, b"text/event-stream"))
        for number in numbers:
            self.send(chunk(b"id: %d\ndata: %b\n\n" % (number, WHO.encode())))
            yield every_s
        self.send(CHUNK_END)

    def step(self, steps: Iterator[float]) -> None:
        """Run a slow answer up to its next pause."""
        self.answering = True
        pause_s = next(steps, None) if self.sock.fileno() >= 0 else None
        if pause_s is not None:
            heapq.heappush(self.origin.later, (monotonic() + pause_s, id(steps), self, steps))
            return
        self.answering = False
        self.requests()

    def send(self, data: bytes) -> None:
        self.outbox += data
        self.flush()

    def flush(self) -> None:
        try:
            if self.outbox:
                self.outbox = self.outbox[self.sock.send(self.outbox) :]
            while self.blocks_left and not self.outbox:
                at = -self.blocks_left % BLOCK  # every copy of a body is the same, however it was cut on its way
                self.blocks_left -= os.sendfile(self.sock.fileno(), self.origin.blocks, at, BLOCK - at)
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self.writing != bool(self.outbox or self.blocks_left):
            self.writing = not self.writing
            wanted = select.EPOLLIN | select.EPOLLRDHUP | (select.EPOLLOUT if self.writing else 0)
            self.origin.epoll.modify(self.sock, wanted)
            if not self.writing and not self.answering:
                self.requests()

    def close(self) -> None:
        fd = self.sock.fileno()
        if fd >= 0:
            del self.origin.connections[fd]
            self.origin.epoll.unregister(fd)
            self.sock.close()


class Body:
    """Counts and sums a request body, of known length or chunked."""

    def __init__(self, length: int | None) -> None:
        self.chunked = length is None
        self.left = length or 0  # of the body, or of this chunk and its CRLF
        self.size, self.crc = 0, 0
        self.done = length == 0

    @classmethod
    def of(cls, raw: bytes) -> Self:
        for line in raw.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return cls(int(line[15:]))
        return cls(None if b"\r\ntransfer-encoding: chunked" in raw.lower() else 0)

    def feed(self, data: bytes) -> bytes:
        """Take body bytes. Returns the bytes not used yet: those after the body, or an incomplete chunk-size line."""
        while data and not self.done:
            if self.left:
                payload = data[: max(self.left - 2, 0) if self.chunked else self.left]
                used = min(self.left, len(data))
                self.size += len(payload)
                self.crc = zlib.crc32(payload, self.crc)
                self.left -= used
                data = data[used:]
                self.done = not self.left and not self.chunked
                continue
            line, end, rest = data.partition(b"\r\n")
            size = int(line.partition(b";")[0], 16) if end else 0
            if not end or (size == 0 and b"\r\n\r\n" not in data):
                break
            if size == 0:
                self.done = True
                return data.partition(b"\r\n\r\n")[2]
            self.left, data = size + 2, rest
        return data


def main() -> None:
    parser = argparse.ArgumentParser(description="a backend that costs next to nothing")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    options = parser.parse_args()
    Origin(socket.create_server((options.host, options.port), backlog=65535)).run()


if __name__ == "__main__":
    main()
