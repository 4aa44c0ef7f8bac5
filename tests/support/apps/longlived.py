"""An application whose clients stay: WebSockets, event streams, slow transfers. A thread per connection.

    /ws                                echoes
    /ws?push=0.005                     says 1, 2, 3 ... so often; `size=N` bytes each
    /ws?last=WORDS&code=4000           when it is told to close, it says WORDS, and closes with that code
    /sse?every=0.01                    events without end, `id: 1` ...; goes on behind Last-Event-ID
    /slow?s=4                          an answer after s seconds
    /drip?s=3&every=0.05               a body of known length that keeps moving for s seconds; `block=N` bytes each time
    /upload                            the length of the body, when it is there
    /page                              an empty page, for a browser
    /image?s=0.3                       a picture of 30 KB, after s seconds
    /whoami  /healthz

On TERM it says how much work it has in hand, "TERM with 0 in hand", and ends when that is nothing.
"""

import json
import os
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from urllib.parse import parse_qsl, urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))

from wsproto.connection import ConnectionType

from support.ws import CLOSE, WebSocketEnd, accept_of, close_payload

# A BMP of 100 x 100 points.
PICTURE = b"BM" + struct.pack("<IIIIiiHHIIIIII", 30054, 0, 54, 40, 100, 100, 1, 24, 0, 30000, 0, 0, 0, 0) + bytes(30000)
ME = {name.lower(): os.environ.get(f"LBPROXY_{name}", "-") for name in ("SLOT", "GENERATION", "POOL")}


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


class Work:
    """The work in hand: from the head of a request until the last byte of its answer is about to go."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.in_hand = 0

    def add(self, number: int) -> None:
        with self.changed:
            self.in_hand += number
            self.changed.notify_all()


WORK = Work()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def do_GET(self) -> None:
        self.counted = True
        WORK.add(1)
        try:
            self.route()
        finally:
            self.done()

    do_POST = do_GET

    def done(self) -> None:
        if self.counted:
            self.counted = False
            WORK.add(-1)

    def route(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        wait = threading.Event().wait
        match parts.path:
            case "/ws" if self.headers.get("Upgrade", "").lower() == "websocket":
                self.websocket(query)
            case "/sse":
                self.events(float(query.get("every", "0.01")))
            case "/slow":
                wait(float(query.get("s", 1)))
                self.answer(json.dumps({**ME, "pid": os.getpid()}).encode())
            case "/drip":
                self.drip(query)
            case "/upload":
                self.answer(str(sum(len(part) for part in self.body())).encode())
            case "/image":
                wait(float(query.get("s", 0)))
                self.answer(PICTURE, "image/bmp")
            case "/page":
                self.answer(b"<!doctype html><title>page</title>", "text/html")
            case _:
                self.answer(json.dumps({**ME, "pid": os.getpid()}).encode())

    def answer(self, body: bytes, kind: str = "application/json") -> None:
        self.start(kind, ("Content-Length", str(len(body))))
        self.done()
        self.wfile.write(body)

    def start(self, kind: str, *fields: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in (("Content-Type", kind), *fields):
            self.send_header(name, value)
        self.end_headers()

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            left = int(self.headers.get("Content-Length") or 0)
            while left and (part := self.rfile.read1(min(left, 65536))):
                left -= len(part)
                yield part
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def events(self, every: float) -> None:
        last = self.headers.get("Last-Event-ID", "")
        number = int(last) if last.isdigit() else 0
        self.start("text/event-stream", ("Transfer-Encoding", "chunked"), ("Cache-Control", "no-store"))
        wait = threading.Event().wait
        data = b"retry: 20\n\n"
        while True:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            wait(every)
            number += 1
            # In two chunks: an event's end is not a chunk's end.
            data = b"id: %d\n" % number
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            data = b"data: %b\n\n" % ME["generation"].encode()

    def drip(self, query: dict[str, str]) -> None:
        wait, every = threading.Event().wait, float(query.get("every", "0.05"))
        count, block = int(float(query.get("s", "3")) / every), b"d" * int(query.get("block", "1000"))
        self.start("application/octet-stream", ("Content-Length", str(count * len(block))))
        for number in range(count):
            if number == count - 1:
                self.done()
            self.wfile.write(block)
            wait(every)

    # -- WebSocket

    def websocket(self, query: dict[str, str]) -> None:
        self.close_connection = True
        self.send_response(101)
        key = self.headers["Sec-WebSocket-Key"].encode()
        for name, value in (
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Accept", accept_of(key).decode()),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.connection.setblocking(False)
        early = self.rfile.peek(1)  # what came right behind the head is in its buffer
        self.connection.setblocking(True)
        end = WebSocketEnd(self.connection, ConnectionType.SERVER, early)
        end.sock.settimeout(None)
        stop = threading.Event()
        if "push" in query:
            pusher = threading.Thread(target=self.push, args=(end, query, stop), daemon=True)
            pusher.start()
        answered = 0
        while end.step(answer=False):
            heard = end.heard
            for message in heard.messages[answered:]:
                if not heard.closes:
                    end.send(message)
            answered = len(heard.messages)
            if heard.closes:
                stop.set()
                if "push" in query:
                    pusher.join()
                break
        self.say_goodbye(end, query)

    def say_goodbye(self, end: WebSocketEnd, query: dict[str, str]) -> None:
        closes = end.heard.closes
        name = query.get("name", "-")
        self.done()
        if not closes:
            say(f"websocket {name} ended without a Close")
            return
        if "last" in query:
            end.send(query["last"])
        code = int(query.get("code", closes[0][0]))
        end.send_frame(CLOSE, b"" if code == 1005 else close_payload(code))
        say(f"websocket {name} got Close {closes[0][0]} {closes[0][1]}")
        end.sock.shutdown(socket.SHUT_WR)
        end.follow(answer=False)
        if end.heard.behind_close:
            say(f"websocket {name} got {end.heard.behind_close!r} behind the Close")

    def push(self, end: WebSocketEnd, query: dict[str, str], stop: threading.Event) -> None:
        number, filling = 0, "." * int(query.get("size", "0"))
        with suppress(OSError):
            while not stop.wait(float(query["push"])):
                number += 1
                end.send(f"{number}{filling}")
        say(f"websocket {query.get('name', '-')} said {number}")


class Server(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1000


def main() -> None:
    if "LISTEN_FDS" in os.environ:
        server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = socket.socket(fileno=3)
    else:
        server = Server((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Handler)
    # Waited for, not handled: a handler runs in the main thread, which does not wake when another one got the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    with WORK.changed:
        say(f"TERM with {WORK.in_hand} in hand")
        WORK.changed.wait_for(lambda: WORK.in_hand == 0)
    os._exit(0)


if __name__ == "__main__":
    main()
