"""From a 101 to a relay: lease, sockets and what is in hand change their owner, and come back when it is over.

Knows exchanges and WebSocket relays; nothing of frames.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lbproxy.drain import Lease
from lbproxy.link.grid import Counter
from lbproxy.model import LeaseKind
from lbproxy.wire.head import ResponseHead
from lbproxy.wire.headers import Framing, response_to_client
from lbproxy.worker.backends import BackendConnection
from lbproxy.worker.relay import Relay, Why
from lbproxy.worker.stream import SocketStream
from lbproxy.worker.websocket_relay import WebSocketRelay

if TYPE_CHECKING:
    from lbproxy.worker.exchange import Exchange

ERRORS = {
    Why.CUT: "cut",
    Why.CLIENT_GONE: "client_gone",
    Why.BACKEND_GONE: "connection_terminated",
    Why.STALLED: "connection_write_timeout",
    Why.FAILED: "proxy_internal_error",
}


class Upgrade:
    """An exchange whose request was answered with 101. `start` is called when no task reads its sockets any more."""

    __slots__ = ("_connection", "_exchange", "_head", "_lease", "_on_closed")

    def __init__(self, exchange: "Exchange", lease: Lease, connection: BackendConnection, head: ResponseHead) -> None:
        self._exchange = exchange
        self._lease = lease
        self._connection = connection
        self._head = head

    def start(self, on_closed: Callable[[], None]) -> None:
        """`on_closed` is called when both sockets are closed."""
        self._on_closed = on_closed
        exchange, connection = self._exchange, self._connection
        context, client = exchange.context, exchange.client
        assert connection.sock is not None
        assert isinstance(client.stream, SocketStream)
        relay = WebSocketRelay(
            context.reactor,
            client.stream.sock,
            connection.sock,
            stall_s=client.listener.settings.timeouts.body_s,
            on_end=self._ended,
        )
        relay.hold(self._lease)
        context.router.change_kind(self._lease, LeaseKind.WEBSOCKET, relay.say_goodbye)
        relay.start(
            head=response_to_client(self._head, exchange.head, exchange.request_id, Framing.NONE, True),
            from_client=bytes(client.buffer),
            from_backend=bytes(connection.buffer),
        )

    def _ended(self, relay: WebSocketRelay) -> None:
        exchange = self._exchange
        exchange.request_bytes = relay.client.received
        exchange.response_bytes = relay.backend.received
        router, cell = exchange.context.router, self._lease.backend.cell
        if relay.closed_by == "proxy":
            router.count(cell, Counter.WEBSOCKETS_CLOSED)
        if relay.why is Why.CUT:
            router.was_cut(self._lease)  # it has a deadline of its own
        exchange.end(error_of(relay))
        router.release(self._lease)
        self._on_closed()


def error_of(relay: Relay) -> str | None:
    return None if relay.why is None else ERRORS.get(relay.why)
