"""Python's share of an exchange in the express lane: a worker's real lanes, over sockets that answer at once.

python loadtest/hotpath.py                      # all, one backend, access log off
python loadtest/hotpath.py --work varied --backends 4 --access combined
python loadtest/hotpath.py --backends 4 --sticky known      # each client has its cookie; `new`: each answer sets one

No kernel, no epoll, no peer: what is left is what a change to the hot path changes, and a twentieth of a microsecond
shows where a run beside nginx shows a whole one. The best of many rounds counts; the total is compare.py's to tell.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lbproxy.address import Address
from lbproxy.link.grid import Grid
from lbproxy.model import BackendId, BackendView, ListenerView, PoolView, RoutingTable
from lbproxy.settings import DrainSettings, ListenerSettings, PoolLimits, PoolTimeouts, StickySettings
from lbproxy.telemetry.access import AccessLog
from lbproxy.telemetry.sink import Sink
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.backends.connections import BackendConnection, BackendConnections
from lbproxy.worker.context import Context
from lbproxy.worker.express.client import ExpressClient
from lbproxy.worker.front.accept import Acceptor
from lbproxy.worker.io.reactor import Reactor
from lbproxy.worker.lanes import Lanes
from lbproxy.worker.leases.router import Router

CLIENTS = 64
DATE = b"Date: Wed, 25 Nov 2026 09:%02d:%02d GMT\r\n"
BROWSER = (
    b"Host: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.7\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\nReferer: https://shop.example.com/items/\r\nConnection: keep-alive\r\n"
    b"Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
)
Message = Callable[[int], bytes]  # a number makes it different from the others


def get(number: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"


def post(number: int) -> bytes:
    return b"POST /post HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024


def varied(number: int) -> bytes:
    """A request of 13 field lines; target, trace id and cookie are new each time."""
    start = b"GET /items/%d?page=%d HTTP/1.1\r\n%b" % (number, number % 90, BROWSER)
    return start + b"traceparent: 00-4bf92f3577b34da6-%d-01\r\nCookie: theme=dark; sid=f3a9c1%d\r\n\r\n" % (
        number,
        number,
    )


def small(number: int) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nServer: nginx\r\n" + DATE % (0, number // 50_000)
    return head + b"Content-Type: text/plain\r\nContent-Length: 12\r\nConnection: keep-alive\r\n\r\nHello world\n"


def page(number: int) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nServer: nginx\r\n" + DATE % (1, number // 50_000)
    cookie = b"Set-Cookie: sid=%032x; Path=/; HttpOnly\r\nCache-Control: private\r\nVary: Cookie\r\n\r\n" % number
    return head + b"Content-Type: text/html\r\nContent-Length: 2048\r\n" + cookie + b"p" * 2048


WORK: dict[str, tuple[Message, Message]] = {"keepalive": (get, small), "varied": (varied, page), "post": (post, small)}


class AtOnce:
    """A socket on which every read is complete and every write is taken. The descriptor is real, for epoll."""

    def __init__(self) -> None:
        self.said = b""
        self._fd = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def recv(self, size: int) -> bytes:
        return self.said

    def send(self, data: bytes) -> int:
        return len(data)


class Bench:
    def __init__(
        self, backends: int, access: str, clients: int = CLIENTS, *, addresses: bool = False, sticky: str = "off"
    ) -> None:
        grid = Grid.create(1, backends + 3)
        self.reactor = Reactor(_complain)
        self.reactor.now = time.monotonic()
        router = Router(grid, 0, _complain)
        idle = BackendConnections(self.reactor)
        log = AccessLog(Sink("/dev/null") if access != "off" else None, access)
        context = Context(self.reactor, router, idle, _complain, _complain, log)
        self.lanes = Lanes(context, Acceptor(self.reactor, grid, 0, _complain))
        listener = ListenerView(1, 0, ListenerSettings("public", Address("127.0.0.1", 8080), pool="web"))
        views = [
            BackendView(BackendId("web", slot, 1), Address("127.0.0.1", 20000 + slot), 2 + slot, f"token-{slot}")
            for slot in range(1, backends + 1)
        ]
        values = (PoolTimeouts(keepalive_s=3600.0), PoolLimits(), DrainSettings(), 2)
        settings = StickySettings() if sticky != "off" else None
        pool = PoolView("web", 1, tuple(views), 1, "least_conn", None, *values, sticky=settings)
        self.cookies = [
            b"Cookie: lbproxy=token-%d\r\n" % (number % backends + 1) if sticky == "known" else b""
            for number in range(clients)
        ]
        router.apply(RoutingTable(1, "bench", (listener,), (), (pool,)))
        self.clients = [AtOnce() for _ in range(clients)]
        facts = [
            ClientFacts(b"127.1.%d.%d" % divmod(number * addresses, 256), False, b"http") for number in range(clients)
        ]
        for client, known in zip(self.clients, facts, strict=True):
            self.lanes.open(client, listener, known if addresses else facts[0])  # type: ignore[arg-type]
        for record in self.lanes._records:
            if isinstance(record, ExpressClient):
                record.has_risked = True  # a first POST would have a connection of its own
        for view in views:
            for _ in range(clients):
                idle.give_back(BackendConnection(view, AtOnce()))  # type: ignore[arg-type]

    def exchange(self, request: Message, reply: Message, number: int) -> int:
        """Run one exchange for each client; returns the nanoseconds that the handlers took."""
        for client, cookie in zip(self.clients, self.cookies, strict=True):
            client.said = request(number := number + 1).replace(b"\r\n\r\n", b"\r\n" + cookie + b"\r\n", 1)
        took = self._handle([client.fileno() for client in self.clients])
        asked = [record.connection for record in self.lanes._records if isinstance(record, ExpressClient)]
        for connection in asked:
            connection.sock.said = reply(number := number + 1)
        return took + self._handle([connection.fd for connection in asked])

    def _handle(self, fds: list[int]) -> int:
        ready = [(fd, 1) for fd in fds]
        began = time.perf_counter_ns()
        self.reactor._handle(ready)
        return time.perf_counter_ns() - began


def _complain(what: object) -> None:
    raise SystemExit(f"not expected: {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", action="append", choices=WORK, help="may be repeated; default: all")
    parser.add_argument("--backends", type=int, default=1)
    parser.add_argument("--access", choices=("off", "combined", "json"), default="off")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="thousands do not fit into the processor's caches")
    parser.add_argument("--addresses", action="store_true", help="each client has one of its own")
    parser.add_argument("--sticky", choices=("off", "new", "known"), default="off")
    parser.add_argument("--rounds", type=int, default=40, help="of 100 exchanges for each client")
    options = parser.parse_args()
    for name in options.work or WORK:
        bench = Bench(
            options.backends, options.access, options.clients, addresses=options.addresses, sticky=options.sticky
        )
        gc.collect()
        gc.freeze()
        best = float("inf")
        for turn in range(options.rounds):
            took = sum(bench.exchange(*WORK[name], (turn * 100 + count) * 1000) for count in range(100))
            best = min(best, took / (100 * options.clients) / 1000)
        if bench.lanes.handed_over:
            raise SystemExit(f"not simple: {bench.lanes.handed_over}")
        print(f"{name:<10} {best:6.2f} us")


if __name__ == "__main__":
    main()
