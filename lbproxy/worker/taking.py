"""A new worker goes on with the connections of an old one.

A connection is taken whole or not at all: whatever is wrong with it is found before a byte moves, and then the old
worker keeps it.
"""

import os
import socket
import traceback
from collections.abc import Sequence

import trio

from lbproxy.link.moved import MovedConnection, MovedKind, MovedRelay, MovedRequest, bytes_of
from lbproxy.model import BackendId, LeaseKind, ListenerView
from lbproxy.telemetry.access import AccessRecord
from lbproxy.telemetry.events import Notice
from lbproxy.wire.head import RequestHead
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.upgrades import WEBSOCKET
from lbproxy.worker.express.client import ExpressClient
from lbproxy.worker.handover import Upgrade
from lbproxy.worker.io.reactor import NEVER
from lbproxy.worker.lanes import Lanes
from lbproxy.worker.leases.moved_lease import lease_of
from lbproxy.worker.relay.tcp import TcpClient
from lbproxy.worker.relay.upgrade import UpgradedClient

BUSY_S = 0.1  # after a connection came, more are likely to come


LEASE_KINDS = {
    MovedKind.TCP: LeaseKind.TCP,
    MovedKind.UPGRADED: LeaseKind.TCP,
    MovedKind.WEBSOCKET: LeaseKind.WEBSOCKET,
}


class Taker:
    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self.deadline = self.queued_at = NEVER

    def take(self, moved: MovedConnection, fds: Sequence[int]) -> str:
        """The descriptors are ours from now on. Returns why the connection cannot be taken; empty: it is."""
        self._be_prompt()
        sockets: list[socket.socket] = []
        try:
            sockets += (socket.socket(fileno=fd) for fd in fds)
            self._begin(moved, sockets)
        except (LookupError, ValueError, OSError) as exc:
            for sock in sockets:
                sock.close()
            for fd in fds[len(sockets) :]:
                os.close(fd)
            return str(exc) or type(exc).__name__
        return ""

    def on_deadline(self) -> None:
        self._lanes.reactor.tasks -= 1

    def _be_prompt(self) -> None:
        """While connections come the reactor does not linger: the link has its turn at once."""
        reactor = self._lanes.reactor
        if self.deadline == NEVER:
            reactor.tasks += 1
        reactor.arm(self, BUSY_S)

    def _begin(self, moved: MovedConnection, sockets: list[socket.socket]) -> None:
        """Raises LookupError, ValueError, OSError."""
        lanes = self._lanes
        view = next((view for view in lanes.router.table.listeners if view.key == moved.listener), None)
        if view is None:
            raise LookupError(f"listener {moved.listener} is not in the table")
        facts = lanes.facts_of(view, moved.client.ip, moved.client.port)
        for sock in sockets:
            sock.setblocking(False)
        if moved.relay is not None:
            self._begin_relay(moved, moved.relay, view, facts, sockets)
            return
        if moved.kind is not MovedKind.IDLE:
            raise ValueError("a relay without what it has in hand")
        (sock,) = sockets
        record = ExpressClient(lanes, sock, view, facts, bytes_of(moved.received))
        record.has_risked = moved.has_risked
        lanes.adopt(record, facts)
        record.begin()
        record.entered_at -= moved.age_s

    def _begin_relay(
        self,
        moved: MovedConnection,
        relay: MovedRelay,
        view: ListenerView,
        facts: ClientFacts,
        sockets: list[socket.socket],
    ) -> None:
        lanes = self._lanes
        if (moved.kind is MovedKind.TCP) != (relay.request is None):
            raise ValueError("an upgraded connection without its request")
        access = None if relay.request is None else _access(relay.request, facts, relay.lease.backend.id)
        lease = lease_of(lanes.router, relay.lease, LEASE_KINDS[moved.kind])
        record: TcpClient | UpgradedClient
        if access is None:
            record = TcpClient(lanes, sockets[0], view, facts)
            record.server_name = moved.server_name
        else:
            protocol = WEBSOCKET if moved.kind is MovedKind.WEBSOCKET else b""
            started = trio.current_time() - moved.age_s
            upgrade = Upgrade(lease, sockets[0], sockets[1], b"", b"", b"", access, started, protocol)
            record = UpgradedClient(lanes, view, upgrade)
        lanes.adopt(record, facts)
        try:
            record.go_on(lease, sockets[1], moved)
        except ValueError:
            lanes.router.release(lease)
            lanes.closed(record)
            raise
        except Exception:  # our own mistake: bytes may have moved, so the old worker cannot go on
            lanes.context.emit(Notice(f"a moved connection was dropped: {traceback.format_exc(limit=-4).strip()}"))
            assert record.relay is not None
            lanes.reactor.defer(record.relay.abort)  # control hears that the worker has a lease before it has none


def _access(request: MovedRequest, facts: ClientFacts, served_by: BackendId) -> AccessRecord:
    """The access record as it was when the upgraded connection began."""
    method, target, host = (text.encode("latin-1") for text in (request.method, request.target, request.host))
    fields = {
        name.encode("latin-1"): [value.encode("latin-1") for value in values] for name, values in request.fields.items()
    }
    return AccessRecord(
        time=request.time,
        head=RequestHead(method, target, host, request.minor, True, None, False, [], fields),
        status=request.status,
        request_bytes=0,
        response_bytes=0,
        duration_s=0.0,
        served_by=served_by,
        client=facts.ip,
        request_id=request.request_id.encode("latin-1"),
    )
