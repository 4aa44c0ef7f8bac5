"""A small web application to look at lbproxy with. Nothing but the standard library: a thread per connection.

    /            a page that shows which backend answers: slot, generation, pid
    /whoami      the same as JSON
    /slow?s=3    answers after that many seconds
    /big?bytes=N N bytes
    /echo        POST: the body comes back
    /sse         a clock as Server-Sent Events; goes on where Last-Event-ID says
    /ws          WebSocket echo
    /healthz     what lbproxy probes

On SIGTERM it stops listening, finishes the requests in hand, says goodbye to the rest and exits.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import BinaryIO
from urllib.parse import SplitResult, parse_qs, urlsplit

BLOCK = 64 * 1024
MAX_BODY = 64 * 1024 * 1024
MAX_MESSAGE = 1024 * 1024
SECONDS_TO_FINISH = 8  # less than lbproxy's restart.stop_timeout
WHOAMI = {
    "slot": os.environ.get("LBPROXY_SLOT", "-"),
    "generation": os.environ.get("LBPROXY_GENERATION", "-"),
    "pid": os.getpid(),
}
PAGE = """<!doctype html><meta charset="utf-8"><title>lbproxy demo</title>
<style>body{font:1.2rem system-ui;margin:3rem;max-width:40rem} b{font-size:2rem} td{padding:.2rem 1rem .2rem 0}</style>
<h1>lbproxy demo</h1>
<table><tr><td>slot<td><b id=slot>SLOT</b><tr><td>generation<td><b id=generation>GENERATION</b>
<tr><td>pid<td><b id=pid>PID</b><tr><td>clock (SSE)<td id=clock>-<tr><td>WebSocket<td id=ws>-</table>
<p>Run <code>lbproxy reload</code> and watch the generation change.
<script>
const put = (id, text) => { document.getElementById(id).textContent = text }
setInterval(async () => {
  try { for (const [k, v] of Object.entries(await (await fetch("/whoami")).json())) put(k, v) }
  catch (error) { put("slot", "lost: " + error) }
}, 500)
new EventSource("/sse").onmessage = event => put("clock", event.data)
const talk = () => {
  const ws = new WebSocket(location.origin.replace("http", "ws") + "/ws")
  ws.onopen = () => { put("ws", "open"); ws.timer = setInterval(() => ws.send(new Date().toISOString()), 1000) }
  ws.onmessage = event => put("ws", event.data)
  ws.onclose = event => { clearInterval(ws.timer); put("ws", "closed " + event.code); setTimeout(talk, 1000) }
}
talk()
</script>
"""


class Demo(ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 4096
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._busy: set[socket.socket] = set()  # a request is in hand
        self._waiting: set[socket.socket] = set()  # idle keep-alive connections and WebSockets

    def mark(self, connection: socket.socket, *, busy: bool) -> None:
        with self._changed:
            (self._busy if busy else self._waiting).add(connection)
            (self._waiting if busy else self._busy).discard(connection)
            self._changed.notify_all()
            if self.stopping.is_set() and not busy:
                wake(connection)

    def gone(self, connection: socket.socket) -> None:
        with self._changed:
            self._busy.discard(connection)
            self._waiting.discard(connection)
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop listening, finish what is in hand, wake what only waits."""
        self.stopping.set()
        self.shutdown()  # ends serve_forever
        self.socket.setblocking(False)
        while True:  # clients that are in the queue already are served, not reset
            try:
                connection, address = self.socket.accept()
            except OSError:
                break
            connection.setblocking(True)
            self.process_request(connection, address)
        self.server_close()
        with self._changed:
            for connection in self._waiting:
                wake(connection)
            self._changed.wait_for(lambda: not self._busy and not self._waiting, SECONDS_TO_FINISH)


def wake(connection: socket.socket) -> None:
    """Let the thread that reads there read an end of file."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = BLOCK
    server: Demo

    def log_message(self, format: str, *args: object) -> None:
        """lbproxy has an access log."""

    def handle_one_request(self) -> None:
        self.server.mark(self.connection, busy=False)
        super().handle_one_request()

    def parse_request(self) -> bool:
        self.server.mark(self.connection, busy=True)
        return super().parse_request()

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            pass  # the client has left
        finally:
            self.server.gone(self.connection)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def do_GET(self) -> None:
        try:
            self.get(urlsplit(self.path))
        except ValueError:
            self.answer(b"that is no number\n", status=400)

    do_HEAD = do_GET

    def get(self, url: SplitResult) -> None:
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/":
            page = PAGE
            for name, value in WHOAMI.items():
                page = page.replace(f">{name.upper()}<", f">{value}<")
            self.answer(page.encode(), "text/html; charset=utf-8")
        elif url.path in ("/whoami", "/healthz"):
            self.answer(json.dumps(WHOAMI).encode() + b"\n", "application/json")
        elif url.path == "/slow":
            seconds = min(float(query.get("s", "3")), 3600)
            time.sleep(seconds)  # noqa: TID251 (being slow is the point)
            self.answer(f"{seconds} s later, from {WHOAMI}\n".encode())
        elif url.path == "/big":
            self.big(int(query.get("bytes", "1000000")))
        elif url.path == "/sse":
            self.clock(self.headers.get("Last-Event-ID", ""))
        elif url.path == "/ws":
            self.websocket()
        else:
            self.answer(b"not here\n", status=404)

    def do_POST(self) -> None:
        try:
            body = self.body()
        except ValueError:
            body = None
        if body is None:
            self.close_connection = True
            self.answer(b"the body could not be read\n", status=400)
        elif urlsplit(self.path).path == "/echo":
            self.answer(body, self.headers.get("Content-Type", "application/octet-stream"))
        else:
            self.answer(b"not here\n", status=404)

    do_PUT = do_POST

    def body(self) -> bytes | None:
        """The whole body; None if it is cut short or too long."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length", "0"))
            return exactly(self.rfile, length) if length <= MAX_BODY else None
        body = bytearray()
        while size := int(self.rfile.readline(1000).split(b";")[0], 16):
            data = exactly(self.rfile, size) if size + len(body) <= MAX_BODY else None
            if data is None or self.rfile.readline(3) != b"\r\n":
                return None
            body += data
        while self.rfile.readline(BLOCK) not in (b"\r\n", b"\n", b""):
            pass  # trailers
        return bytes(body)

    def answer(self, body: bytes, kind: str = "text/plain; charset=utf-8", *, status: int = 200) -> None:
        self.begin(status, kind, ("Content-Length", str(len(body))))
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, kind: str, framing: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header(*framing)
        self.end_headers()

    def big(self, size: int) -> None:
        self.begin(200, "application/octet-stream", ("Content-Length", str(size)))
        block = b"lbproxy\n" * (BLOCK // 8)
        for start in range(0, size if self.command != "HEAD" else 0, BLOCK):
            self.wfile.write(block[: size - start])

    def clock(self, last_id: str) -> None:
        """One event a second; its id is the second it tells, so that any backend can go on after any other."""
        now = int(time.time())
        second = max(int(last_id) + 1, now - 60) if last_id.isdigit() else now
        chunked = self.request_version != "HTTP/1.0"
        self.close_connection = not chunked
        self.begin(200, "text/event-stream", ("Transfer-Encoding", "chunked") if chunked else ("Connection", "close"))
        while self.command != "HEAD" and not self.server.stopping.wait(max(second - time.time(), 0)):
            told = time.strftime("%H:%M:%S", time.gmtime(second))
            event = f"id: {second}\ndata: {told} UTC from slot {WHOAMI['slot']}@{WHOAMI['generation']}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event) if chunked else event)
            self.wfile.flush()
            second += 1
        if chunked and self.command != "HEAD":
            self.wfile.write(b"0\r\n\r\n")

    def websocket(self) -> None:
        """RFC 6455, the server's side: every message comes back as it came."""
        key = self.headers.get("Sec-WebSocket-Key", "")
        if self.headers.get("Upgrade", "").lower() != "websocket" or not key:
            self.answer(b"a WebSocket lives here\n", status=426)
            return
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept.decode())
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        self.server.mark(self.connection, busy=False)
        self.send_frame(8, echo_messages(self.rfile, self.send_frame))

    def send_frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
        self.wfile.write(head + payload)
        self.wfile.flush()


def exactly(stream: BinaryIO, size: int) -> bytes | None:
    data = stream.read(size)
    return data if len(data) == size else None


def read_frame(stream: BinaryIO) -> tuple[bool, int, bytes] | None:
    """(final, opcode, payload); None at the end of the stream. ValueError: not a frame that we take."""
    head = exactly(stream, 2)
    if head is None:
        return None
    final, opcode, size = bool(head[0] & 0x80), head[0] & 0x0F, head[1] & 0x7F
    if head[0] & 0x70 or not head[1] & 0x80:
        raise ValueError("reserved bits, or no mask")
    if opcode >= 8 and (size > 125 or not final):
        raise ValueError("a control frame is short and whole")
    if size >= 126:
        more = exactly(stream, 2 if size == 126 else 8)
        if more is None:
            return None
        size = int.from_bytes(more, "big")
    if size > MAX_MESSAGE:
        raise ValueError("too long")
    mask, masked = exactly(stream, 4), exactly(stream, size)
    if mask is None or masked is None:
        return None
    keys = (mask * (size // 4 + 1))[:size]
    return final, opcode, (int.from_bytes(masked, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")


def echo_messages(stream: BinaryIO, send_frame) -> bytes:
    """Answer until the other side ends it. Returns the payload of our Close frame."""
    kind, parts = 0, bytearray()
    try:
        while frame := read_frame(stream):
            final, opcode, payload = frame
            if opcode == 8:
                return payload[:2]
            if opcode == 9:
                send_frame(10, payload)
            elif opcode in (0, 1, 2) and (opcode == 0) == (kind != 0):
                kind = kind or opcode
                parts += payload
                if len(parts) > MAX_MESSAGE:
                    return struct.pack("!H", 1009)
                if final:
                    if kind == 1:
                        parts.decode()
                    send_frame(kind, bytes(parts))
                    kind, parts = 0, bytearray()
            elif opcode != 10:
                return struct.pack("!H", 1002)
    except UnicodeDecodeError:
        return struct.pack("!H", 1007)
    except ValueError:
        return struct.pack("!H", 1002)
    return struct.pack("!H", 1001)  # the stream ended: we were told to stop, or nobody is there to read this


def main() -> None:
    parser = argparse.ArgumentParser(description="lbproxy's demo application")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    options = parser.parse_args()
    server = Demo((options.host, options.port))
    told = threading.Event()
    stop = threading.Thread(target=lambda: told.wait() and server.stop())
    stop.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    print(f"slot {WHOAMI['slot']}, generation {WHOAMI['generation']}: on port {options.port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    stop.join()


main()
