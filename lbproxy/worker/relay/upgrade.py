"""A WebSocket, or another protocol, from its 101 to its end: what is left of a client when no task serves it any more.

Knows leases and relays; nothing of frames, and nothing of exchanges.
"""

import socket

import trio

from lbproxy.link.grid import Counter
from lbproxy.link.moved import MovedConnection
from lbproxy.model import LeaseKind, ListenerView
from lbproxy.wire.upgrades import WEBSOCKET
from lbproxy.worker.ending import count_exchange, end
from lbproxy.worker.handover import Home, Upgrade
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.leases.moved_lease import tell_at
from lbproxy.worker.relay.moved_relay import resume
from lbproxy.worker.relay.relay import Relay, Why, error_of
from lbproxy.worker.relay.websocket import WebSocketRelay
from lbproxy.worker.tally import REQUEST_BYTES, RESPONSE_BYTES

ABNORMAL = 1006  # RFC 6455, 7.1.5: no Close was received
REGISTERED = range(1000, 1016)
BROKEN_BY = {
    Why.CLIENT_GONE: "client",
    Why.BACKEND_GONE: "backend",
    Why.CUT: "proxy",
    Why.STALLED: "proxy",
    Why.FAILED: "proxy",
}


class UpgradedClient:
    """One client of a WebSocket or of another protocol, until its relay is over.

    There are thousands of them, and most say nothing for hours. So this is all that is left of client, exchange and
    backend connection: what the end has to know.
    """

    __slots__ = ("_lease", "is_stream", "lanes", "record", "relay", "sock", "started", "view")

    def __init__(self, lanes: Home, view: ListenerView, upgrade: Upgrade) -> None:
        self.lanes = lanes
        client = upgrade.client
        self.is_stream = not isinstance(client, socket.socket)  # of an HTTP/2 connection: that is the lanes' record
        self.sock = client if isinstance(client, socket.socket) else client.sock
        self.view = view
        self._lease = upgrade.lease
        self.started = upgrade.started
        self.record = upgrade.record
        both, stall_s = (client, upgrade.backend), view.settings.timeouts.body_s
        self.relay: Relay
        if upgrade.protocol == WEBSOCKET:
            self.relay = WebSocketRelay(lanes.reactor, *both, stall_s=stall_s, on_end=self._websocket_ended)
        else:
            self.relay = Relay(lanes.reactor, *both, stall_s=stall_s, on_end=self._ended, pipes=lanes.pipes)

    @property
    def lease(self) -> Lease:
        return self._lease

    @property
    def client_ip(self) -> bytes:
        return self.record.client

    def begin(self, upgrade: Upgrade) -> None:
        """Lanes are told when both sockets are closed; a stream tells its connection."""
        lease, lanes = self._lease, self.lanes
        record = self.record._replace(duration_s=trio.current_time() - self.started)
        count_exchange(lanes.context, record, lease.backend.id.pool)
        relay = self.relay
        if isinstance(relay, WebSocketRelay):
            lanes.router.change_kind(lease, LeaseKind.WEBSOCKET, relay.say_goodbye)
        else:
            lanes.router.change_kind(lease, LeaseKind.TCP)
        relay.hold(lease)
        relay.start(head=upgrade.head, from_client=upgrade.from_client, from_backend=upgrade.from_backend)

    def go_on(self, lease: Lease, sock: socket.socket, moved: MovedConnection) -> None:
        """Instead of `begin`, with the relay of another worker. `lease` and `sock`, the backend's, are ours already.
        Raises ValueError."""
        if moved.relay is None:
            raise ValueError("an upgraded connection without a relay")
        self._hold(tell_at(moved.relay.lease))
        resume(self.relay, moved.relay)

    def come_back(self) -> None:
        """No other worker took the lifted relay."""
        self._lease.overdue = False
        self._hold(self.lanes.reactor.now)
        self.relay.go_on()
        self.lanes.router.rouse_drains()

    def let_go(self) -> None:
        """Another worker has the lifted relay, and writes down its end."""
        self.relay.let_go()
        self.lanes.router.release(self._lease)
        self.lanes.closed(self)

    def _hold(self, tell_at: float) -> None:
        """Be told and cut with the lease: told at that clock reading, if its backend drains."""
        relay, lease = self.relay, self._lease
        relay.hold(lease)
        if isinstance(relay, WebSocketRelay):
            lease.leases.change(lease, lease.kind, relay.say_goodbye, tell_at=tell_at)

    def _websocket_ended(self, relay: WebSocketRelay) -> None:
        router, lease = self.lanes.router, self._lease
        if relay.closed_by == "proxy":
            router.count(lease.backend.cell, Counter.WEBSOCKETS_CLOSED)
        if relay.why is Why.CUT:
            router.was_cut(lease)  # it has a deadline of its own
        self.lanes.context.tally.note("websocket_close", lease.backend.id.pool, *_closed(relay))
        self._ended(relay)

    def _ended(self, relay: Relay) -> None:
        lanes, lease = self.lanes, self._lease
        router, cell = lanes.router, lease.backend.cell
        record = self.record._replace(
            request_bytes=relay.client.received,
            response_bytes=relay.backend.received,
            duration_s=trio.current_time() - self.started,
            error=error_of(relay),
        )
        pool, tally = lease.backend.id.pool, lanes.context.tally
        series = tally.series(pool, record.head.method, record.status, lease.backend.id.generation)
        series[REQUEST_BYTES] += relay.client.received
        series[RESPONSE_BYTES] += relay.backend.received
        end(lanes.context, record, cell=cell)
        router.release(lease)
        if not self.is_stream:
            lanes.closed(self)


def _closed(relay: WebSocketRelay) -> tuple[str, str]:
    """The code of the Close, and its sender. Of a code that a client may have invented only the thousand shows."""
    by, code = relay.closed_by, relay.close_code or ABNORMAL
    if by is None:
        return str(ABNORMAL), BROKEN_BY.get(relay.why, "nobody") if relay.why is not None else "nobody"
    if by == "client" and code not in REGISTERED:
        return f"{code // 1000}xxx", by
    return str(code), by
