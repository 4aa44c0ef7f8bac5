"""The open connections of a worker, listed and closed for an operator (`lbproxy connections`, `lbproxy close`).

Nothing is kept for this while nobody asks: a list is read off the records of the lanes, their leases and the kernel's
counters of the sockets. Bytes of the last 10 s are the difference of two looks at those counters.
"""

import socket
import struct
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import trio

from lbproxy.link.messages import AskConnections, ConnectionRow, Connections
from lbproxy.model import LeaseKind
from lbproxy.settings import DrainSettings
from lbproxy.wire.http2.errors import CANCEL
from lbproxy.worker.express.client import ExpressClient
from lbproxy.worker.express.phase import IDLE
from lbproxy.worker.front.accept import Acceptor, Admitting
from lbproxy.worker.http2.client import Http2Client
from lbproxy.worker.http2.express import ExpressStream
from lbproxy.worker.http2.relayed_stream import RelayedStream
from lbproxy.worker.http2.stream import StreamClient
from lbproxy.worker.io.reactor import NEVER, Reactor
from lbproxy.worker.leases.drain import STALLED_S, Lease
from lbproxy.worker.leases.router import Router
from lbproxy.worker.relay.tcp import TcpClient
from lbproxy.worker.relay.upgrade import UpgradedClient
from lbproxy.worker.task.client import Client

WINDOW_S = 10.0  # the bytes of so long are told
LOOK_AGAIN_S = 0.3  # without an earlier look: the bytes of this time, times WINDOW_S / LOOK_AGAIN_S
KEPT_S = 30.0  # looks, and the list that further pages are cut from, are forgotten when nobody asks for so long
LIST_AGE_S = 3.0  # a page behind the first may be cut from a list of this age
SLICE = 500  # connections looked at before others get their turn
PIECE = 200  # rows in one message
SO_COOKIE = 57  # a number that the kernel gives a socket when it is first asked for, and never gives again
_TCP_INFO = struct.Struct("=44xI4xI64xQQ")  # ms since data was sent, and received; bytes acknowledged, and received

Record = ExpressClient | Http2Client | TcpClient | UpgradedClient


class Lanes(Protocol):
    """What a list needs of the worker's lanes."""

    reactor: Reactor
    router: Router

    @property
    def records(self) -> Sequence[Record]: ...
    def client_of(self, record: Record) -> Client | None: ...


class Seen(NamedTuple):
    number: int
    record: Record | Admitting
    total_bytes: int | None
    silent_s: float | None
    moved_bytes: int | None = None


class ConnectionList:
    def __init__(self, lanes: Lanes, acceptor: Acceptor) -> None:
        self._lanes = lanes
        self._acceptor = acceptor
        self._looks: deque[tuple[float, dict[int, int]]] = deque()  # when, and the bytes so far of each connection
        self._list: list[Seen] = []
        self._listed_at = NEVER
        self._asked = trio.Lock()
        self.deadline = self.queued_at = NEVER

    async def answer(self, ask: AskConnections, post: Callable[[Connections], None]) -> None:
        """One page, in pieces."""
        async with self._asked:
            reactor = self._lanes.reactor
            reactor.arm_at(self, trio.current_time() + KEPT_S)
            if not ask.after or not 0 <= trio.current_time() - self._listed_at <= LIST_AGE_S:
                self._list = await self._take_list()
                self._listed_at = trio.current_time()
            await self._send_page(ask, post)

    def on_deadline(self) -> None:
        self._looks.clear()
        self._list.clear()
        self._listed_at = NEVER

    def close(self, number: int, stream: int = 0) -> str:
        """End one connection, or one stream of it, as its drain would: see messages.Closed."""
        for record in (*self._lanes.records, *self._acceptor.admitting):
            if _number(record.sock) == number:
                if stream:
                    return self._end_stream(record, stream)
                return self._end_all(record) if isinstance(record, Http2Client) else self._end(record)
        return ""

    # The list

    async def _take_list(self) -> list[Seen]:
        found = await self._look()
        now = trio.current_time()
        recent = any(one.silent_s is not None and one.silent_s < WINDOW_S for one in found)
        if recent and not any(now - at >= LOOK_AGAIN_S for at, _ in self._looks):
            self._remember(now, found)
            await trio.sleep(LOOK_AGAIN_S)
            found, now = await self._look(), trio.current_time()
        before = self._base(now)
        self._remember(now, found)
        return [one._replace(moved_bytes=_moved(one, before, now)) for one in found]

    async def _look(self) -> list[Seen]:
        """Every open connection with its counters, in the order of the numbers."""
        found = []
        records = (*self._lanes.records, *self._acceptor.admitting)
        for start in range(0, len(records), SLICE):
            for record in records[start : start + SLICE]:
                number = _number(record.sock)
                if number:
                    found.append(Seen(number, record, *_traffic(record.sock)))
            await trio.lowlevel.checkpoint()
        return sorted(found, key=lambda one: one.number)

    def _base(self, now: float) -> tuple[float, dict[int, int]] | None:
        """The look to compare with: the youngest that is WINDOW_S old, else the oldest."""
        while len(self._looks) > 1 and now - self._looks[1][0] >= WINDOW_S:
            self._looks.popleft()
        return self._looks[0] if self._looks else None

    def _remember(self, now: float, found: list[Seen]) -> None:
        if self._looks and now - self._looks[-1][0] < 1.0:
            return
        totals = {one.number: one.total_bytes for one in found if one.total_bytes is not None}
        self._looks.append((now, totals))

    async def _send_page(self, ask: AskConnections, post: Callable[[Connections], None]) -> None:
        at = bisect_left(self._list, ask.after, key=lambda one: one.number)
        open_now = {*self._lanes.records, *self._acceptor.admitting}
        rows: list[ConnectionRow] = []
        sent = 0
        for one in self._list[at:]:
            if one.record not in open_now:
                continue
            for row in self._rows(one, ask):
                if (row.number, row.stream) <= (ask.after, ask.after_stream):
                    continue
                if sent + len(rows) == ask.limit:
                    post(Connections(ask.ask, tuple(rows), is_last=True, has_more=True))
                    return
                rows.append(row)
                if len(rows) == PIECE:
                    post(Connections(ask.ask, tuple(rows), is_last=False))
                    sent, rows = sent + len(rows), []
                    await trio.lowlevel.checkpoint()
        post(Connections(ask.ask, tuple(rows), is_last=True))

    def _rows(self, one: Seen, ask: AskConnections) -> Iterator[ConnectionRow]:
        """What is asked for of a connection: itself, and below it the streams that it carries."""
        record = one.record
        if (row := self._row(one, ask, self._lease_of(record))) is not None:
            yield row
        streams = record.streams if isinstance(record, Http2Client) else {}
        for _, stream in sorted(streams.items()):
            if (row := self._row(one, ask, stream.lease, stream)) is not None:
                yield row

    def _row(
        self,
        one: Seen,
        ask: AskConnections,
        lease: Lease | None,
        stream: StreamClient | ExpressStream | RelayedStream | None = None,
    ) -> ConnectionRow | None:
        """None: it is not asked for."""
        record = one.record
        backend = lease.backend.id if lease is not None else None
        if ask.pool is not None and (backend is None or backend.pool != ask.pool):
            return None
        if ask.backends and str(backend) not in ask.backends:
            return None
        now = trio.current_time()
        rule = grace_s = left_s = None
        if lease is not None:
            rule, grace_s = _grace(lease, self._drain_of(lease), now)
            left_s = lease.leases.left_s(lease, now)
        return ConnectionRow(
            one.number,
            _client(record),
            record.view.settings.name,
            self._kind(record, lease) if stream is None else str(LeaseKind.REQUEST if lease is None else lease.kind),
            str(backend) if backend is not None else None,
            max(0.0, now - (stream.since if lease is None and stream is not None else _since(record, lease))),
            one.moved_bytes if stream is None else None,
            one.silent_s if stream is None else None,
            rule,
            grace_s,
            left_s,
            stream.number if stream is not None else 0,
        )

    def _lease_of(self, record: Record | Admitting) -> Lease | None:
        if isinstance(record, Admitting | Http2Client):
            return None
        client = self._lanes.client_of(record)
        return record.lease if client is None else client.lease

    def _kind(self, record: Record | Admitting, lease: Lease | None) -> str:
        if lease is not None:
            return str(lease.kind)
        if isinstance(record, TcpClient):
            return str(LeaseKind.TCP)
        if isinstance(record, Http2Client):
            return "http2" if record.streams else "idle"
        if isinstance(record, ExpressClient):
            client = self._lanes.client_of(record)
            is_idle = record.phase is IDLE if client is None else client.idle_scope is not None
            return "idle" if is_idle else str(LeaseKind.REQUEST)
        return "idle"

    def _drain_of(self, lease: Lease) -> DrainSettings:
        pool = self._lanes.router.pool(lease.backend.id.pool)
        return lease.drain or lease.leases.drain or (pool.drain if pool is not None else DrainSettings())

    # The end of one

    def _end(self, record: Record | Admitting) -> str:
        if isinstance(record, Admitting):
            record.close(None)
            return "closed"
        client = self._lanes.client_of(record)
        lease = self._lease_of(record)
        if lease is not None and not (isinstance(record, TcpClient) and record.relay is None):
            return self._dismiss(record, lease)
        if isinstance(record, UpgradedClient) or client is not None or (isinstance(record, TcpClient) and not lease):
            _hang_up(record.sock)  # its task sees the end, as if the client had left
        else:
            record.abort()
        return "closed"

    def _end_all(self, record: Http2Client) -> str:
        """The client is told that the connection ends, and each stream ends by itself."""
        how = "closed"
        for stream in list(record.streams.values()):
            ended = self._end_one(record, stream)
            how = ended if how != "cut" else how
        record.stop()
        return how

    def _end_stream(self, record: Record | Admitting, number: int) -> str:
        if isinstance(record, Http2Client) and (stream := record.streams.get(number)) is not None:
            return self._end_one(record, stream)
        return ""

    def _end_one(self, record: Http2Client, stream: StreamClient | ExpressStream | RelayedStream) -> str:
        if stream.lease is not None:
            return self._dismiss(record, stream.lease)
        record.reset(stream.number, CANCEL)
        stream.leave("an operator has closed the stream")
        return "closed"

    def _dismiss(self, record: Record, lease: Lease) -> str:
        router = self._lanes.router
        self._keep_no_longer(record)
        if lease.leases.dismiss(lease, self._drain_of(lease), trio.current_time()):
            router.rouse_drains()
            return "goodbye"
        router.was_cut(lease)
        lease.cut()
        self._keep_no_longer(record)  # the cut may have handed it to a task
        return "cut"

    def _keep_no_longer(self, record: Record) -> None:
        if (client := self._lanes.client_of(record)) is not None:
            client.is_unwanted = True


def _number(sock: socket.socket) -> int:
    """0: it has just been closed."""
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")
    except OSError:
        return 0


def _traffic(sock: socket.socket) -> tuple[int | None, float | None]:
    """Bytes so far, both ways, and seconds since the last; None where the kernel does not count (unix)."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return None, None
    if len(info) < _TCP_INFO.size:
        return None, None
    sent_ago_ms, received_ago_ms, acknowledged, received = _TCP_INFO.unpack(info)
    return acknowledged + received, min(sent_ago_ms, received_ago_ms) / 1000


def _moved(one: Seen, before: tuple[float, dict[int, int]] | None, now: float) -> int | None:
    if one.total_bytes is None or one.silent_s is None:
        return None
    if one.silent_s >= WINDOW_S:
        return 0
    if before is None:
        return None
    at, totals = before
    if one.number not in totals:
        return one.total_bytes  # it is younger than that look
    return round((one.total_bytes - totals[one.number]) * WINDOW_S / max(now - at, LOOK_AGAIN_S))


def _client(record: Record | Admitting) -> str:
    """The address that a PROXY header announced, else that of the peer, with its port."""
    ip = record.client_ip if isinstance(record, UpgradedClient) else record.facts.ip
    try:
        peer = record.sock.getpeername()
    except OSError:  # it is reset
        peer = None
    if not isinstance(peer, tuple):
        return ip.decode() or "unix"
    host = peer[0].removeprefix("::ffff:") if "." in peer[0] else peer[0].partition("%")[0]
    if ip and ip.decode() != host:
        return ip.decode()
    return f"[{host}]:{peer[1]}" if ":" in host else f"{host}:{peer[1]}"


def _since(record: Record | Admitting, lease: Lease | None) -> float:
    if lease is not None:
        return lease.started
    if isinstance(record, ExpressClient):
        return record.entered_at
    return record.since if isinstance(record, TcpClient | Http2Client) else trio.current_time()


def _grace(lease: Lease, drain: DrainSettings, now: float) -> tuple[str, float]:
    """Which setting holds for it, and how long that is. A WebSocket has its goodbye on top."""
    match lease.kind:
        case LeaseKind.WEBSOCKET:
            return "websocket", drain.websocket_s + drain.goodbye_s
        case LeaseKind.STREAM:
            return "stream", drain.stream_s
        case LeaseKind.TCP:
            return "tcp", drain.tcp_s
        case LeaseKind.TRANSFER if now - lease.moved_at < STALLED_S:
            return "transfer", max(drain.transfer_s, drain.request_s)
    return "request", drain.request_s


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):  # it is reset
        sock.shutdown(socket.SHUT_RDWR)
