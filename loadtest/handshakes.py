"""A flood of TLS handshakes at half of what a worker can do, and what other clients notice of it.

python loadtest/handshakes.py --seconds 10

One worker on a CPU of its own. Each client of the flood sends a ClientHello from an address of its own, reads the first
bytes of the answer, for which the worker has made a signature, and goes away. Meanwhile wrk asks at a steady rate over
plain connections, and clients with a new TLS connection each ask once. Then clients that begin a handshake and stand
still hold every place.
"""

import contextlib
import multiprocessing
import os
import select
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import trio

import rig
from paced import Measured, Rate, paced
from peers import pause

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.serve import Serving, serving

CONFIG = """
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
[[listener]]
address = "127.0.0.1:$port2"
tls = {{ cert = "{cert}", key = "{cert}" }}
[pool.web]
command = "$origin --port {{port}}"
[pool.web.health]
path = "/healthz"
[log]
access = "off"
"""
MOST_P99_MS = 100.0
AT_ONCE = 200  # clients of the flood
STILL = 500
STILL_MOST_S = 3.0
HALF = 0.5


def main() -> None:
    options = rig.arguments(__doc__, seconds=10, rate=500)
    rig.need("wrk")
    report = rig.Report("handshakes")
    first, second, *_ = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    with tempfile.TemporaryDirectory(prefix="lbproxy-load-") as folder:
        cert = _certificate(Path(folder))
        prefix = ("taskset", "-c", str(second))
        with serving(CONFIG.format(cert=cert), Path(folder), prefix=prefix) as lb:
            _run(lb, options.seconds, options.rate, report)
    report.end()


def _run(lb: Serving, seconds: int, rate: int, report: rig.Report) -> None:
    port = lb.ports["port2"]
    with flooding(port, None, 3) as done:
        pass
    capacity = done() / 3
    report.line("capacity", f"{capacity:.0f} handshakes/s")
    peace, alone = _others(lb, rate, seconds)
    with flooding(port, capacity * HALF, seconds + 4) as done:
        pause(1)
        flooded, together = _others(lb, rate, seconds)
    report.line("flood", f"{done() / (seconds + 4):.0f} handshakes/s")
    report.line("plain, in peace", peace)
    report.line("plain, in the flood", flooded)
    report.line("new TLS clients, in peace", _spread(alone))
    report.line("new TLS clients, in the flood", _spread(together))
    report.promise(flooded.errors == 0, f"{flooded.errors} errors")
    report.promise(flooded.p99_ms < MOST_P99_MS, f"p99 of plain clients is {flooded.p99_ms:.1f} ms")
    p99_ms = 1000 * statistics.quantiles(together, n=100)[98]
    report.promise(p99_ms < MOST_P99_MS, f"p99 of new TLS clients is {p99_ms:.1f} ms")
    for name, source in (("one address", lambda number: "127.0.0.1"), ("an address each", _address)):
        with standing_still(port, source):
            took = [_asked_s(port) for _ in range(5)]
        report.line(f"{STILL} that stand still, {name}", ", ".join(f"{one:.2f} s" for one in took))
        report.promise(max(took) < STILL_MOST_S, f"a client waited {max(took):.1f} s for clients that stand still")


def _others(lb: Serving, rate: int, seconds: int) -> tuple[Measured, list[float]]:
    """What clients notice that are no part of the flood: of wrk, and the seconds of each new TLS client."""
    took: list[float] = []

    async def run() -> Measured:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            measured = await paced(rig.url(lb, "/"), Rate(rate), seconds)
            nursery.cancel_scope.cancel()
        return measured

    async def ask() -> None:
        while True:
            took.append(await trio.to_thread.run_sync(_asked_s, lb.ports["port2"]))
            await trio.sleep(0.02)

    return trio.run(run), took


def _spread(took: list[float]) -> str:
    cuts = statistics.quantiles(took, n=100)
    return f"{len(took)} clients, p50 {1000 * cuts[49]:.1f} ms, p99 {1000 * cuts[98]:.1f} ms"


def _asked_s(port: int) -> float:
    """Connect, handshake, one request."""
    began = monotonic()
    with _context().wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20)) as secured:
        secured.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while secured.recv(4096):
            pass
    return monotonic() - began


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _hello() -> bytes:
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        _context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="a.example").do_handshake()
    return out.read()


def _address(number: int) -> str:
    return f"127.2.{number // 250 % 250}.{number % 250 + 1}"


def _connected(port: int, source: str) -> socket.socket:
    """A connection that is made without waiting."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


@contextlib.contextmanager
def flooding(port: int, per_s: float | None, seconds: int) -> Iterator[Callable[[], int]]:
    """The flood, in a process of its own, to its end. Behind the block the value gives the number of answers. `per_s`:
    None is as many as can be."""
    counted = multiprocessing.Value("q", 0)
    process = multiprocessing.Process(target=_flood, args=(port, per_s, seconds, counted))
    process.start()
    try:
        yield lambda: counted.value
    finally:
        process.join()


def _flood(
    port: int, per_s: float | None, seconds: int, counted: "multiprocessing.sharedctypes.Synchronized[int]"
) -> None:
    hello, begun, number, answers = _hello(), monotonic(), 0, 0
    open_now: dict[int, socket.socket] = {}
    with select.epoll() as epoll:
        while (passed := monotonic() - begun) < seconds:
            while len(open_now) < AT_ONCE and (per_s is None or number < passed * per_s):
                sock = _connected(port, _address(number))
                sock.send(hello)
                open_now[sock.fileno()] = sock
                epoll.register(sock, select.EPOLLIN)
                number += 1
            for fd, _ in epoll.poll(0.002):
                sock = open_now.pop(fd)
                with contextlib.suppress(OSError):
                    answers += bool(sock.recv(4096))
                sock.close()
    for sock in open_now.values():
        sock.close()
    counted.value = answers


@contextlib.contextmanager
def standing_still(port: int, source: Callable[[int], str]) -> Iterator[None]:
    hello = _hello()
    with contextlib.ExitStack() as stack:
        for number in range(STILL):
            sock = stack.enter_context(_connected(port, source(number)))
            sock.send(hello)
        pause(0.5)
        yield


def _certificate(folder: Path) -> Path:
    path = folder / "certificate.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=a.example"]
    command = ["openssl", "req", "-x509", *options, "-keyout", "-"]
    path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return path


if __name__ == "__main__":
    main()
