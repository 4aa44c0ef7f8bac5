"""An application with everything that goes wrong in one: a threaded server of the standard library, ready in 0.1 s.

    BREAK=import    raises while it is imported         BREAK=silent   lives, and never listens
    BREAK=health    /healthz answers 500                BREAK=later    lives until it gets POST /die, or `LIVES` seconds
    BREAK=term      does not end on TERM

    /whoami  /healthz  /env?name=N      who it is, and what it was started with
    /slow?s=1                           an answer after s seconds
    /die                                ends before it answers            /half    ends in the middle of a body
    /ends                               answers, then ends with exit code 7
    /deaf                               answers, then takes no more connections
    /say?text=T&times=N                 writes to its standard output     /head    the request's head as it came
    /sum                                POST: length and CRC32 of the body

It listens at PORT, LBPROXY_SOCKET or the descriptor of LISTEN_FDS. On TERM it answers what it has in hand and ends.
"""

import json
import os
import select
import signal
import socket
import socketserver
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, urlsplit


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


BREAK = os.environ.get("BREAK", "")
if BREAK == "import":
    say("about to import the database driver")
    raise ImportError("this deploy is broken on purpose")

ME = {name.lower(): os.environ.get(f"LBPROXY_{name}", "-") for name in ("SLOT", "GENERATION", "POOL")}
FIRST_DESCRIPTOR = 3


class Work:
    """The number of requests in hand: the end waits for them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.in_hand = 0

    def add(self, number: int) -> None:
        with self.changed:
            self.in_hand += number
            self.changed.notify_all()

    def wait_idle(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.in_hand == 0)


WORK = Work()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        pass

    def address_string(self) -> str:
        return "-"

    def answer(self, body: bytes | str | dict, status: int = 200) -> None:
        raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)
        self.wfile.flush()

    def do_GET(self) -> None:
        WORK.add(1)
        try:
            self.route()
        finally:
            WORK.add(-1)

    do_HEAD = do_POST = do_PUT = do_GET

    def route(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        body = self.body()
        match parts.path:
            case "/healthz":
                broken = BREAK == "health"
                self.answer("the database is on fire" if broken else "fine", 500 if broken else 200)
            case "/slow":
                select.select([self.connection], [], [], float(query.get("s", 1)))  # shorter if the client goes
                self.answer({**ME, "pid": os.getpid()})
            case "/die":
                os._exit(9)
            case "/half":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b"x" * 50_000)
                self.wfile.flush()
                os._exit(9)
            case "/ends":
                say("going down, as was asked for")
                self.answer("bye")
                self.connection.shutdown(socket.SHUT_WR)
                os._exit(7)
            case "/deaf":
                self.server.socket.shutdown(socket.SHUT_RDWR)
                self.answer("what?")
            case "/say":
                for number in range(int(query.get("times", 1))):
                    sys.stdout.write(query["text"].replace("%", str(number)) + "\n")
                sys.stdout.flush()
                self.answer("said")
            case "/head":
                self.answer(f"{self.requestline}\n{self.headers}")
            case "/env":
                self.answer(os.environ.get(query["name"], "-"))
            case "/sum":
                self.answer(f"{len(body)} {zlib.crc32(body):08x}")
            case _:
                self.answer({**ME, "pid": os.getpid()})

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        return whole


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1000

    def handle_error(self, request: object, client_address: object) -> None:
        """The client has gone."""


def listening() -> socketserver.BaseServer:
    if "LISTEN_FDS" in os.environ:
        inherited = socket.socket(fileno=FIRST_DESCRIPTOR)
    elif "LBPROXY_SOCKET" in os.environ:
        inherited = socket.socket(socket.AF_UNIX)
        inherited.bind(os.environ["LBPROXY_SOCKET"])
        inherited.listen(1000)
    else:
        return Server((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Handler)
    server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = inherited
    return server


def main() -> None:
    if BREAK == "silent":
        threading.Event().wait()
    server = listening()
    ending = threading.Event()

    def end() -> None:
        ending.wait()
        server.shutdown()

    def on_term(*_: object) -> None:
        if BREAK != "term":
            ending.set()

    signal.signal(signal.SIGTERM, on_term)
    threading.Thread(target=end, daemon=True).start()
    if lives := os.environ.get("LIVES"):
        threading.Timer(float(lives), os._exit, (11,)).start()
    say(f"slot {ME['slot']}, generation {ME['generation']} listens")
    server.serve_forever(poll_interval=60 if BREAK == "term" else 0.05)
    WORK.wait_idle()
    os._exit(0)


if __name__ == "__main__":
    main()
