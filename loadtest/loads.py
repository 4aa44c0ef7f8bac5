"""The loads of a comparison: wrk and ab where they can, small clients of our own where they cannot.

Each load takes a port and a time and returns what was done. Knows no proxy. wrk drives TCP mode as well: for a proxy
that only relays bytes an HTTP exchange is one small round trip.
"""

import base64
import contextlib
import os
import re
import select
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
BUFFER = bytearray(1 << 20)
PAYLOAD = b"0123456789abcdef" * 2
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
GREETING = b"Hello world\n"  # what the origin answers
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
)
# 13 header fields; target, trace id and cookie are new in every request.
VARIED = """
local n = math.floor((os.time() % 100000) * 10000 + {seed} * 1000000)
local head = "Host: shop.example.com\\r\\n" ..
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\\r\\n" ..
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\\r\\n" ..
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3\\r\\nAccept-Encoding: gzip, deflate, br\\r\\n" ..
    "Referer: https://shop.example.com/items/\\r\\nConnection: keep-alive\\r\\nUpgrade-Insecure-Requests: 1\\r\\n" ..
    "Sec-Fetch-Dest: document\\r\\nSec-Fetch-Mode: navigate\\r\\nSec-Fetch-Site: same-origin\\r\\n" ..
    "traceparent: 00-4bf92f3577b34da6a3ce"
request = function()
    n = n + 1
    return "GET /items/" .. n .. "?page=" .. n % 90 .. " HTTP/1.1\\r\\n" .. head .. n .. "-00f067aa0ba902b7-01\\r\\n" ..
        "Cookie: consent=yes; theme=dark; sid=f3a9c1" .. n .. "\\r\\n\\r\\n"
end
"""
POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"text": "' .. string.rep("x", 1012) .. '"}'
"""


@dataclass(frozen=True, slots=True)
class Done:
    """The work that one load has done."""

    operations: int
    seconds: float
    p50_s: float
    p99_s: float
    failed: int = 0

    @property
    def rate(self) -> float:
        return self.operations / self.seconds if self.seconds else 0.0


class LoadFailed(Exception):
    """The proxy did not serve this load at all."""


def wrk(port: int, seconds: int, *, connections: int, path: str = "/", script: str = "", scheme: str = "http") -> Done:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        if script:
            file.write(script.replace("{seed}", str(os.urandom(1)[0])))
            file.flush()
            command += ["-s", file.name]
        output = output_of([*command, f"{scheme}://127.0.0.1:{port}{path}"], seconds + 20)
    total = re.search(r"(\d+) requests in ([0-9.]+)(\w+),", output)
    if total is None or int(total[1]) == 0:
        raise LoadFailed(f"wrk: {output.strip()[-200:]}")
    latency = {name: float(value) * SECONDS[unit] for name, value, unit in LATENCY(output)}
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    others = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    failed = sum(map(int, errors.groups())) if errors else 0
    failed += int(others[1]) if others else 0
    return Done(int(total[1]), float(total[2]) * SECONDS[total[3]], latency["50"], latency["99"], failed)


LATENCY = re.compile(r"^\s+(50|99)%\s+([0-9.]+)(us|ms|s|m)", re.MULTILINE).findall


def ab(port: int, seconds: int, *, connections: int, scheme: str = "http") -> Done:
    """Requests on a connection each. With https each makes a full handshake: ab keeps no sessions."""
    command = ["ab", "-q", "-l", "-r", "-t", str(seconds), "-n", "200000", "-c", str(connections)]
    output = output_of([*command, f"{scheme}://127.0.0.1:{port}/"], seconds + 20)
    found = {name: re.search(pattern, output, re.MULTILINE) for name, pattern in AB.items()}
    complete, took = found["complete"], found["took"]
    if complete is None or took is None or int(complete[1]) == 0:
        raise LoadFailed(f"ab: {output.strip()[-200:]}")
    p50, p99 = (int(found[name][1]) / 1000 if found[name] else 0.0 for name in ("50", "99"))
    failed = sum(int(found[name][1]) for name in ("failed", "others") if found[name])
    return Done(int(complete[1]), float(took[1]), p50, p99, failed)


AB = {
    "complete": r"^Complete requests:\s+(\d+)",
    "took": r"^Time taken for tests:\s+([0-9.]+)",
    "failed": r"^Failed requests:\s+(\d+)",
    "others": r"^Non-2xx responses:\s+(\d+)",
    "50": r"^\s+50%\s+(\d+)",
    "99": r"^\s+99%\s+(\d+)",
}


def websocket_echo(port: int, seconds: int, *, connections: int) -> Done:
    """One small frame in flight on each connection."""
    frame = bytes((0x82, 0x80 | len(PAYLOAD), 0, 0, 0, 0)) + PAYLOAD  # masked with zeros: the payload stays as it is
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_websocket(port)) for _ in range(connections)]
        return _round_trips(clients, frame, PAYLOAD, seconds)


def addresses(port: int, seconds: int, *, connections: int) -> Done:
    """Keep-alive requests of clients with an address each, 127.1.0.1 and up: wrk has one address in all.

    The client is one epoll loop in Python. Its CPU is not counted, but it is slower than wrk: the proxy has fewer
    events at a time, so the figures stand beside each other and not beside those of wrk.
    """
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_from_address(index, port)) for index in range(connections)]
        return _round_trips(clients, GET, GREETING, seconds)


def _from_address(index: int, port: int) -> socket.socket:
    source = f"127.1.{index // 250}.{index % 250 + 1}"
    sock = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _round_trips(clients: list[socket.socket], message: bytes, end: bytes, seconds: int) -> Done:
    """One message in flight on each connection. Its answer is complete where the bytes end with `end`."""
    took: list[float] = []
    by_fd = {sock.fileno(): sock for sock in clients}
    with contextlib.closing(select.epoll()) as epoll:
        for sock in clients:
            sock.setblocking(False)
            epoll.register(sock, select.EPOLLIN)
        begun = perf_counter()
        sent = dict.fromkeys(by_fd, begun)
        for sock in clients:
            sock.send(message)
        now, ends = begun, begun + seconds
        while now < ends:
            ready = epoll.poll(2.0)
            now = perf_counter()
            if not ready:
                raise LoadFailed("nothing came back for 2 s")
            for fd, _ in ready:
                sock = by_fd[fd]
                data = sock.recv(4096)
                if not data.endswith(end):
                    if not data:
                        raise LoadFailed("a connection was closed")
                    continue
                took.append(now - sent[fd])
                sent[fd] = now
                sock.send(message)
    return done_of(took, now - begun)


def _websocket(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(UPGRADE % base64.b64encode(os.urandom(16)))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = sock.recv(1)
        if not part:
            raise LoadFailed(f"not upgraded: {head[:100]!r}")
        head += part
    if b" 101 " not in head:
        raise LoadFailed(f"not upgraded: {head[:100]!r}")
    return sock


def bulk(port: int, seconds: int, *, path: str) -> Done:
    """Downloads one after the other. The kernel discards the body: reading it is not the proxy's work."""
    took: list[float] = []
    request = b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        begun = now = perf_counter()
        while now - begun < seconds:
            started = now
            sock.sendall(request)
            left = _body_left(sock)
            while left:
                got = sock.recv_into(BUFFER, min(left, len(BUFFER)), socket.MSG_TRUNC)
                if not got:
                    raise LoadFailed("a download was cut short")
                left -= got
            now = perf_counter()
            took.append(now - started)
    return done_of(took, now - begun)


def _body_left(sock: socket.socket) -> int:
    """Read a head; returns the number of body bytes that are still to come."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(4096)
        if not part:
            raise LoadFailed("closed before a head came")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
    if length is None or b" 200 " not in head:
        raise LoadFailed(f"unexpected answer: {head[:100]!r}")
    return int(length[1]) - len(body)


def idle_connections(port: int, count: int) -> contextlib.AbstractContextManager[int]:
    """Keep-alive connections after one request each. The context value is the number of them that are still open."""
    return held(count, lambda: _kept_alive(port))


def idle_tls(port: int, count: int) -> contextlib.AbstractContextManager[int]:
    """As idle_connections, over TLS with a full handshake each."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def connect() -> socket.socket:
        sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))
        return _after_one_request(sock)

    return held(count, connect)


def idle_websockets(port: int, count: int) -> contextlib.AbstractContextManager[int]:
    """WebSockets that are silent after the handshake. The context value is the number of them that are still open."""
    return held(count, lambda: _websocket(port))


@contextlib.contextmanager
def held(count: int, connect: Callable[[], socket.socket]) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            clients.append(stack.enter_context(connect()))
            clients[-1].setblocking(False)
        yield sum(map(_is_open, clients))


def _kept_alive(port: int) -> socket.socket:
    return _after_one_request(socket.create_connection(("127.0.0.1", port), timeout=10))


def _after_one_request(sock: socket.socket) -> socket.socket:
    sock.sendall(GET)
    left = _body_left(sock)
    while left:
        left -= len(sock.recv(left))
    return sock


def _is_open(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1))
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


def done_of(took: list[float], seconds: float, *, failed: int = 0) -> Done:
    if not took:
        raise LoadFailed("nothing came back")
    ordered = sorted(took)
    return Done(len(ordered), seconds, ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], failed)


def output_of(command: list[str], limit_s: float) -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"{command[0]} did not end") from None
    return done.stdout.decode(errors="replace")
