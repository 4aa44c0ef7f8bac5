"""What a relay has in hand, as a value, and a relay that goes on with such a value.

Knows no lease and no client.
"""

from lbproxy.link.moved import MovedLease, MovedRelay, MovedRequest, MovedSide, base64_of, bytes_of
from lbproxy.wire.websocket import FrameTracker
from lbproxy.worker.relay.relay import Relay
from lbproxy.worker.relay.side import Side
from lbproxy.worker.relay.websocket import WebSocketRelay


def value_of(relay: Relay, lease: MovedLease, request: MovedRequest | None = None) -> MovedRelay:
    """The relay is lifted. `request`: of a WebSocket."""
    client, backend = _side_value(relay.client), _side_value(relay.backend)
    if not isinstance(relay, WebSocketRelay):
        return MovedRelay(lease, client, backend)
    return MovedRelay(lease, client, backend, relay.from_client.position, relay.from_backend.position, request)


def resume(relay: Relay, value: MovedRelay) -> None:
    """Begin a relay that was just made. Raises ValueError before any byte has moved."""
    for side, moved in ((relay.client, value.client), (relay.backend, value.backend)):
        side.outbox = bytes_of(moved.waiting)
        side.received = moved.received
        side.ended = moved.has_ended
        side.is_shut = moved.is_shut
    if isinstance(relay, WebSocketRelay):
        if value.from_client is None or value.from_backend is None:
            raise ValueError("a WebSocket without its place in the frames")
        relay.from_client = FrameTracker.at(value.from_client)
        relay.from_backend = FrameTracker.at(value.from_backend)
    relay.go_on()


def _side_value(side: Side) -> MovedSide:
    waiting = side.outbox
    assert isinstance(waiting, bytes)  # a lifted side has no pipe
    return MovedSide(base64_of(waiting), side.received, side.ended, side.is_shut)
