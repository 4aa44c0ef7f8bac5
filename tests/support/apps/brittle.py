"""An application with everything that goes wrong in one: a thread per connection, ready in 0.1 s.

The suite starts it more than a thousand times. So it reads HTTP by itself: http.server alone takes 25 ms to import.

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

import os
import select
import signal
import socket
import sys
import threading
import zlib
from contextlib import suppress


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


class Conversation:
    """One connection: requests one after the other, answered."""

    def __init__(self, server: socket.socket, connection: socket.socket) -> None:
        self.server = server
        self.connection = connection
        self.file = connection.makefile("rb")

    def run(self) -> None:
        with suppress(OSError, ValueError), self.connection, self.file:
            while first := self.file.readline():
                self.first = first.decode("latin-1").strip()
                self.method, target, _ = self.first.split(" ")
                self.path, _, query = target.partition("?")
                self.query = dict(part.split("=", 1) for part in query.split("&") if part)
                self.lines = [line.decode("latin-1").rstrip("\r\n") for line in iter(self.file.readline, b"\r\n")]
                WORK.add(1)
                try:
                    self.route()
                finally:
                    WORK.add(-1)
                if self.field("connection").lower() == "close":
                    return

    def field(self, name: str) -> str:
        found = (line.partition(":")[2].strip() for line in self.lines if line.lower().startswith(f"{name}:"))
        return next(found, "")

    def answer(self, body: str, status: str = "200 OK") -> None:
        raw = body.encode()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
        self.connection.sendall(head + (raw if self.method != "HEAD" else b""))

    def me(self) -> str:
        facts = [f'"{name}": "{value}"' for name, value in ME.items()]
        return f'{{{", ".join(facts)}, "pid": {os.getpid()}}}'

    def route(self) -> None:
        body = self.body()
        match self.path:
            case "/healthz" if BREAK == "health":
                self.answer("the database is on fire", "500 Internal Server Error")
            case "/healthz":
                self.answer("fine")
            case "/slow":
                select.select([self.connection], [], [], float(self.query.get("s", 1)))  # shorter if the client goes
                self.answer(self.me())
            case "/die":
                os._exit(9)
            case "/half":
                self.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
                os._exit(9)
            case "/ends":
                say("going down, as was asked for")
                self.answer("bye")
                self.connection.shutdown(socket.SHUT_WR)
                os._exit(7)
            case "/deaf":
                self.server.shutdown(socket.SHUT_RDWR)
                self.answer("what?")
            case "/say":
                text = unquoted(self.query["text"])
                for number in range(int(self.query.get("times", 1))):
                    sys.stdout.write(text.replace("%", str(number)) + "\n")
                sys.stdout.flush()
                self.answer("said")
            case "/head":
                self.answer("\n".join([self.first, *self.lines, ""]))
            case "/env":
                self.answer(os.environ.get(self.query["name"], "-"))
            case "/sum":
                self.answer(f"{len(body)} {zlib.crc32(body):08x}")
            case _:
                self.answer(self.me())

    def body(self) -> bytes:
        if self.field("expect"):
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" not in self.field("transfer-encoding"):
            return self.file.read(int(self.field("content-length") or 0))
        whole = b""
        while size := int(self.file.readline().partition(b";")[0], 16):
            whole += self.file.read(size)
            self.file.readline()
        while self.file.readline() not in (b"\r\n", b""):
            pass
        return whole


def unquoted(text: str) -> str:
    first, *parts = text.replace("+", " ").encode().split(b"%")
    return (first + b"".join(bytes.fromhex(part[:2].decode()) + part[2:] for part in parts)).decode()


def listening() -> socket.socket:
    if "LISTEN_FDS" in os.environ:
        return socket.socket(fileno=FIRST_DESCRIPTOR)
    if "LBPROXY_SOCKET" in os.environ:
        server = socket.socket(socket.AF_UNIX)
        server.bind(os.environ["LBPROXY_SOCKET"])
    else:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])))
    server.listen(1000)
    return server


def serve(server: socket.socket, ending: socket.socket) -> None:
    """Accept until the other end of `ending` is closed, or /deaf has been asked for."""
    while True:
        ready, _, _ = select.select([server, ending], [], [])
        if ending in ready:
            return
        try:
            connection, _ = server.accept()
        except BlockingIOError:
            continue  # a socket of several processes: another one was faster
        except OSError:  # deaf
            ending.recv(1)
            return
        connection.setblocking(True)
        threading.Thread(target=Conversation(server, connection).run, daemon=True).start()


def main() -> None:
    if BREAK == "silent":
        threading.Event().wait()
    server = listening()
    server.setblocking(False)
    ending, teller = socket.socketpair()
    signal.signal(signal.SIGTERM, lambda *_: BREAK == "term" or teller.close())
    if lives := os.environ.get("LIVES"):
        threading.Timer(float(lives), os._exit, (11,)).start()
    say(f"slot {ME['slot']}, generation {ME['generation']} listens")
    serve(server, ending)
    WORK.wait_idle()
    os._exit(0)


if __name__ == "__main__":
    main()
