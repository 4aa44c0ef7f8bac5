"""A WebSocket, or another protocol, from its 101 to its end: what is left of a client when no task serves it any more.

Knows leases and relays; nothing of frames, and nothing of exchanges.
"""

import trio

from lbproxy.link.grid import Counter
from lbproxy.model import LeaseKind, ListenerView
from lbproxy.wire.upgrades import WEBSOCKET
from lbproxy.worker.ending import count_exchange, end
from lbproxy.worker.handover import Home, Upgrade
from lbproxy.worker.leases.drain import Lease
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

    __slots__ = ("_lease", "_record", "_started", "lanes", "sock", "view")

    def __init__(self, lanes: Home, view: ListenerView, upgrade: Upgrade) -> None:
        self.lanes = lanes
        self.sock = upgrade.client
        self.view = view
        self._lease = upgrade.lease
        self._started = upgrade.started
        self._record = upgrade.record

    @property
    def lease(self) -> Lease:
        return self._lease

    @property
    def client_ip(self) -> bytes:
        return self._record.client

    def begin(self, upgrade: Upgrade) -> None:
        """Lanes are told when both sockets are closed."""
        lease, lanes = self._lease, self.lanes
        record = self._record._replace(duration_s=trio.current_time() - self._started)
        count_exchange(lanes.context, record, lease.backend.id.pool)
        stall_s = self.view.settings.timeouts.body_s
        if upgrade.protocol == WEBSOCKET:
            websocket = WebSocketRelay(
                lanes.reactor, self.sock, upgrade.backend, stall_s=stall_s, on_end=self._websocket_ended
            )
            lanes.router.change_kind(lease, LeaseKind.WEBSOCKET, websocket.say_goodbye)
            relay: Relay = websocket
        else:
            pipes = None if lease.backend.address.secure else lanes.pipes
            relay = Relay(
                *(lanes.reactor, self.sock, upgrade.backend), stall_s=stall_s, on_end=self._ended, pipes=pipes
            )
            lanes.router.change_kind(lease, LeaseKind.TCP)
        relay.hold(lease)
        relay.start(head=upgrade.head, from_client=upgrade.from_client, from_backend=upgrade.from_backend)

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
        record = self._record._replace(
            request_bytes=relay.client.received,
            response_bytes=relay.backend.received,
            duration_s=trio.current_time() - self._started,
            error=error_of(relay),
        )
        pool, tally = lease.backend.id.pool, lanes.context.tally
        series = tally.series(pool, record.head.method, record.status, lease.backend.id.generation)
        series[REQUEST_BYTES] += relay.client.received
        series[RESPONSE_BYTES] += relay.backend.received
        end(lanes.context, record, cell=cell)
        router.release(lease)
        lanes.closed(self)


def _closed(relay: WebSocketRelay) -> tuple[str, str]:
    """The code of the Close, and its sender. Of a code that a client may have invented only the thousand shows."""
    by, code = relay.closed_by, relay.close_code or ABNORMAL
    if by is None:
        return str(ABNORMAL), BROKEN_BY.get(relay.why, "nobody") if relay.why is not None else "nobody"
    if by == "client" and code not in REGISTERED:
        return f"{code // 1000}xxx", by
    return str(code), by
