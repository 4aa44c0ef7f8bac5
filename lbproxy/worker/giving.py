"""An old worker gives its connections away: what is idle or a relay goes to a new worker while clients see a pause.

A connection is lifted off the reactor, its value and descriptors go to control, and nobody reads or writes until
control says that a new worker has it. Until then the old one keeps its sockets, its lease and its place in the counts:
a drain never sees a moment in which nobody holds the connection, and a refusal costs the connection nothing. Few are
under way at once, so that each waits for milliseconds and the clients that stay are served between them.
"""

import traceback
from collections import deque
from collections.abc import Callable, Sequence

import trio

from lbproxy.link.messages import Given
from lbproxy.link.moved import MovedClient, MovedConnection, MovedKind, MovedRequest, base64_of
from lbproxy.telemetry.access import for_access
from lbproxy.telemetry.events import Notice
from lbproxy.worker.express.client import ExpressClient
from lbproxy.worker.express.phase import HEAD, IDLE
from lbproxy.worker.http2.client import Http2Client
from lbproxy.worker.io.splice import are_plain
from lbproxy.worker.lanes import Lanes, Record
from lbproxy.worker.leases import moved_lease
from lbproxy.worker.relay.moved_relay import value_of
from lbproxy.worker.relay.relay import Relay
from lbproxy.worker.relay.tcp import TcpClient
from lbproxy.worker.relay.upgrade import UpgradedClient
from lbproxy.worker.relay.websocket import WebSocketRelay

MOST_UNDER_WAY = 24  # each waits for some 40 ms while a thousand move on two busy CPUs
A_TURN = 8  # lifted in a row before others get their turn

Movable = ExpressClient | TcpClient | UpgradedClient
Post = Callable[[Given, Sequence[int]], None]
Lifted = tuple[MovedConnection, Sequence[int]]


class Giver:
    """`post(message, descriptors)` sends to control. The descriptors stay open until `released`."""

    def __init__(self, lanes: Lanes, post: Post) -> None:
        self._lanes = lanes
        self._post = post
        self._queue: deque[Movable] = deque()
        self._under_way: dict[int, Movable] = {}
        self._number = 0
        self._stopped = False
        self._changed = trio.Event()

    @property
    def under_way(self) -> int:
        """Connections that were given and not released yet."""
        return len(self._under_way)

    async def run(self) -> None:
        """Give what is offered. Until cancelled."""
        reactor = self._lanes.reactor
        while True:
            reactor.tasks += 1  # the reactor does not linger meanwhile
            try:
                await self._give_queue()
            finally:
                reactor.tasks -= 1
            await self._wait_change()

    def look(self) -> None:
        """Give every connection away: now, or when that has become possible."""
        self._lanes.going = True
        self._lanes.on_offer = self._offered
        for record in self._lanes.records:
            self._offered(record)

    async def wait_settled(self) -> None:
        """Until everything that was offered is with a new worker, or stays."""
        while self._queue or self._under_way:
            await self._wait_change()

    def stop(self) -> None:
        """Give nothing more. What is under way is settled by `released`."""
        self._stopped = True
        self._queue.clear()
        self._notify()

    def released(self, number: int, *, is_taken: bool) -> None:
        record = self._under_way.pop(number, None)
        if record is None:
            return
        self._lanes.lifted.discard(record)
        if not is_taken:
            _put_back(record)
        elif isinstance(record, ExpressClient):
            record.close()
        else:
            record.let_go()
        self._notify()

    def _offered(self, record: Record) -> None:
        if not self._stopped and not isinstance(record, Http2Client):  # its client is told to make another one
            self._queue.append(record)
            self._notify()

    async def _give_queue(self) -> None:
        while self._queue:
            room = min(A_TURN, MOST_UNDER_WAY - self.under_way, len(self._queue))
            for _ in range(room):
                self._give(self._queue.popleft())
            if room:
                await trio.lowlevel.checkpoint()
            else:
                await self._wait_change()
        self._notify()

    def _give(self, record: Movable) -> None:
        lanes = self._lanes
        if not lanes.has(record):
            return
        try:
            lifted = _lift(lanes, record)
        except Exception:  # our own mistake: the connection stays here
            lanes.context.emit(Notice(f"a connection cannot be moved: {traceback.format_exc(limit=-4).strip()}"))
            _put_back(record)
            return
        if lifted is None:
            return
        moved, fds = lifted
        self._number += 1
        self._under_way[self._number] = record
        lanes.lifted.add(record)
        self._post(Given(self._number, moved), fds)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _wait_change(self) -> None:
        await self._changed.wait()


def _lift(lanes: Lanes, record: Movable) -> Lifted | None:
    """Take a connection off the reactor. None: it cannot be moved, or not now."""
    if isinstance(record, ExpressClient):
        return _lift_idle(lanes, record)
    relay = record.relay
    lease = record.lease
    if relay is None or lease is None or not relay.is_movable or lease.overdue:
        return None
    held = moved_lease.value_of(lanes.router, lease)
    relay.lift()
    lease.overdue = True  # what its drain does next is up to the new worker
    since = record.since if isinstance(record, TcpClient) else record.started
    moved = MovedConnection(
        _kind(record, relay),
        record.view.key,
        _client(record),
        trio.current_time() - since,
        relay=value_of(relay, held, _request(record) if isinstance(record, UpgradedClient) else None),
        server_name=record.server_name if isinstance(record, TcpClient) else None,
    )
    return moved, (relay.client.sock.fileno(), relay.backend.sock.fileno())


def _lift_idle(lanes: Lanes, record: ExpressClient) -> Lifted | None:
    if record.phase not in (IDLE, HEAD) or record.lease is not None or not are_plain(record.sock):
        return None
    age_s = lanes.reactor.now - record.entered_at
    received = base64_of(record.buffer)
    record.leave()
    moved = MovedConnection(
        MovedKind.IDLE, record.view.key, _client(record), age_s, received, has_risked=record.has_risked
    )
    return moved, (record.fd,)


def _put_back(record: Movable) -> None:
    if isinstance(record, ExpressClient):
        record.begin()
    else:
        record.come_back()


def _kind(record: Record, relay: Relay) -> MovedKind:
    if isinstance(record, TcpClient):
        return MovedKind.TCP
    return MovedKind.WEBSOCKET if isinstance(relay, WebSocketRelay) else MovedKind.UPGRADED


def _client(record: Record) -> MovedClient:
    if isinstance(record, UpgradedClient):
        return MovedClient(record.client_ip.decode("latin-1"))  # nobody asks for more
    return MovedClient(record.facts.ip.decode("latin-1"), record.facts.port)


def _request(record: UpgradedClient) -> MovedRequest:
    access = record.record
    head = for_access(access.head)
    return MovedRequest(
        access.time,
        head.method.decode("latin-1"),
        head.target.decode("latin-1"),
        head.host.decode("latin-1"),
        head.minor,
        access.status,
        access.request_id.decode("latin-1"),
        {
            name.decode("latin-1"): tuple(value.decode("latin-1") for value in values)
            for name, values in head.fields.items()
        },
    )
