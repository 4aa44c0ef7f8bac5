"""From a 101 to a relay: lease, sockets and what is in hand change their owner, and come back when it is over.

Knows exchanges and WebSocket relays; nothing of frames.
"""

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lbproxy.link.grid import Counter
from lbproxy.model import LeaseKind, ListenerView
from lbproxy.telemetry.access import AccessRecord, for_access
from lbproxy.wire.head import ResponseHead
from lbproxy.wire.headers import Framing, response_to_client
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.io.stream import SocketStream
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.relay.relay import Why, error_of
from lbproxy.worker.relay.websocket import WebSocketRelay

if TYPE_CHECKING:
    from lbproxy.worker.lanes import Lanes
    from lbproxy.worker.task.exchange import Exchange


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An exchange whose request was answered with 101 (`head`), until no task reads its sockets any more."""

    exchange: "Exchange"
    lease: Lease
    connection: BackendConnection
    head: ResponseHead


class WebSocketClient:
    """One client of a WebSocket, until its relay is over.

    There are thousands of them, and most say nothing for hours. So this is all that is left of client, exchange and
    backend connection: what the end has to know.
    """

    __slots__ = ("_lease", "_record", "_started", "lanes", "sock", "view")

    def __init__(self, lanes: "Lanes", view: ListenerView, upgrade: Upgrade) -> None:
        exchange = upgrade.exchange
        assert isinstance(exchange.client.stream, SocketStream)
        self.lanes = lanes
        self.sock: socket.socket = exchange.client.stream.sock
        self.view = view
        self._lease = upgrade.lease
        self._started = exchange.started
        self._record: AccessRecord = exchange.record()._replace(head=for_access(exchange.head))

    def begin(self, upgrade: Upgrade) -> None:
        """Lanes are told when both sockets are closed."""
        exchange, lease, backend = upgrade.exchange, self._lease, upgrade.connection
        relay = WebSocketRelay(
            self.lanes.reactor,
            self.sock,
            backend.sock,
            stall_s=self.view.settings.timeouts.body_s,
            on_end=self._ended,
        )
        relay.hold(lease)
        self.lanes.router.change_kind(lease, LeaseKind.WEBSOCKET, relay.say_goodbye)
        relay.start(
            head=response_to_client(upgrade.head, exchange.head, exchange.own_lines(upgrade.head), Framing.NONE, True),
            from_client=bytes(exchange.client.buffer),
            from_backend=backend.buffer,
        )

    def _ended(self, relay: WebSocketRelay) -> None:
        lanes, lease = self.lanes, self._lease
        router, cell = lanes.router, lease.backend.cell
        if relay.closed_by == "proxy":
            router.count(cell, Counter.WEBSOCKETS_CLOSED)
        if relay.why is Why.CUT:
            router.was_cut(lease)  # it has a deadline of its own
        router.count(cell, Counter.REQUESTS)
        lanes.context.access.add(
            self._record._replace(
                request_bytes=relay.client.received,
                response_bytes=relay.backend.received,
                duration_s=trio.current_time() - self._started,
                error=error_of(relay),
            )
        )
        router.release(lease)
        lanes.closed(self)
