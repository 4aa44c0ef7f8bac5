"""TCP mode: a client connection is a lease and a relay. Claim, connect, relay; what has to wait waits in a task.

On the reactor from the first moment. Knows nothing of what the bytes mean.
"""

import socket
from contextlib import suppress

import trio

from lbproxy.errors import ProxyError
from lbproxy.link.moved import MovedConnection
from lbproxy.model import BackendId, LeaseKind, ListenerView, PoolView
from lbproxy.telemetry.access import AccessRecord
from lbproxy.wire.head import RequestHead
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.backends.announcement import announcement
from lbproxy.worker.backends.connections import (
    ConnectFailed,
    ConnectTimedOut,
    Crowded,
    begin_connect,
    finish_connect,
)
from lbproxy.worker.backends.secure import Untrusted
from lbproxy.worker.ending import end
from lbproxy.worker.handover import Home
from lbproxy.worker.io.reactor import NEVER, WRITE, FunctionHandler
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.relay.moved_relay import resume
from lbproxy.worker.relay.relay import Relay, error_of

# What an end is called in the access log: served, the client left, nobody to serve it; every other one is a 502.
STATUS_OF: dict[str | None, int] = {
    None: 200,
    "client_gone": 499,
    "destination_unavailable": 503,
    "connection_limit_reached": 503,
    "destination_not_found": 404,
}
UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"  # a fatal alert (RFC 8446, 6; RFC 6066, 3)
TCP = LeaseKind.TCP  # an attribute of an enum costs as much as three of these


class TcpClient:
    """One client of a tcp listener, until its relay is over."""

    __slots__ = (
        "_backend",
        "_early",
        "_lease",
        "_pool",
        "_since",
        "deadline",
        "facts",
        "lanes",
        "queued_at",
        "relay",
        "server_name",
        "sock",
        "view",
    )

    def __init__(
        self, lanes: Home, sock: socket.socket, view: ListenerView, facts: ClientFacts, early: bytes = b""
    ) -> None:
        """`early`: received already, for the backend."""
        self.lanes = lanes
        self.sock = sock
        self.view = view
        self.facts = facts
        self._early = early
        self.server_name: str | None = None  # that routes go by
        self.relay: Relay | None = None
        self.deadline = self.queued_at = NEVER
        self._lease: Lease | None = None
        self._backend: socket.socket | None = None
        self._pool: PoolView | None = None
        self._since = lanes.reactor.now  # it waits for a backend

    @property
    def lease(self) -> Lease | None:
        return self._lease

    @property
    def since(self) -> float:
        """When it came: clock reading."""
        return self._since

    def begin(self) -> None:
        """Claim and connect without waiting, if that can be had."""
        while (lease := self._claim()) is not None:
            try:
                self._connect(lease)
                return
            except Crowded:
                if lease.backend.address.secure:
                    self._lease = None
                    self.lanes.router.give_back(lease)
                self._let_go()
                break
            except ConnectFailed as exc:
                self._pass_over(str(exc))
        self.lanes.spawn(self._begin_in_task)

    def _claim(self) -> Lease | None:
        """None: somebody else is waiting, too, or there is nobody to wait for."""
        router = self.lanes.router
        pool = self._pool = router.route_session(self.view, self.server_name)
        if pool is None or (router.queues and router.waiting(pool.name)):
            return None
        lease = self._lease = router.claim(pool, TCP, self._key(pool), self.lanes.reactor.now)
        return lease

    def _connect(self, lease: Lease) -> None:
        """On loopback a connection stands before connect() returns: the relay begins at once. Else it waits.

        Raises ConnectFailed, or Crowded where only a task can wait.
        """
        reactor, address = self.lanes.reactor, lease.backend.address
        sock = self._backend = begin_connect(address)
        if sock is None:
            raise Crowded(f"{address}: a handshake of TLS")
        if finish_connect(sock, address):
            self._start(lease, sock)
            return
        assert self._pool is not None
        reactor.register(sock.fileno(), WRITE, FunctionHandler(self.on_connected))
        reactor.arm(self, self._pool.timeouts.connect_s)

    def on_connected(self, mask: int) -> None:
        lease, sock = self._lease, self._backend
        if lease is None or sock is None:
            return
        try:
            if not finish_connect(sock, lease.backend.address):
                return
        except ConnectFailed as exc:
            self._refused(str(exc))
            return
        self.lanes.reactor.unregister(sock.fileno())
        self.lanes.reactor.disarm(self)
        self._start(lease, sock)
        self.lanes.offer(self)

    def on_deadline(self) -> None:
        if self._pool is not None:
            self._refused(f"no connection within {self._pool.timeouts.connect_s:g}s", timed_out=True)

    async def _begin_in_task(self) -> None:
        """Begin a session that waits in the queue, or for a TLS handshake with the backend."""
        lanes = self.lanes
        while True:
            pool = lanes.router.route_session(self.view, self.server_name)
            if pool is None:
                self._turn_away()
                return
            try:
                lease = await lanes.router.wait_claim(pool.name, TCP, self._key(pool), self._since)
            except ProxyError as exc:
                record = self._record(exc.token, exc.reason)
                end(lanes.context, record, cell=pool.cell, failed=pool.name)
                self.close()
                return
            try:
                connection = await lanes.context.connect(lease.backend, pool.timeouts.connect_s)
            except Untrusted as exc:
                record = self._record(exc.token, str(exc), served_by=lease.backend.id)
                end(lanes.context, record, cell=lease.backend.cell, failed=pool.name)
                lanes.router.release(lease)
                self.close()
                return
            except ConnectFailed as exc:
                lanes.context.unreachable(lease.backend, str(exc), timed_out=isinstance(exc, ConnectTimedOut))
                lanes.router.release(lease)
                continue
            except BaseException:
                lanes.router.release(lease)
                raise
            self._start(lease, connection.sock)
            lanes.offer(self)
            return

    def _turn_away(self) -> None:
        """No pool takes this session. A client that has begun a handshake is told why it ends."""
        if self.server_name is not None:
            reason = f"no route takes the name {self.server_name}"
            end(self.lanes.context, self._record("destination_not_found", reason), cell=None)
            with suppress(OSError):
                self.sock.send(UNRECOGNIZED_NAME)
        self.close()

    def _start(self, lease: Lease, sock: socket.socket) -> None:
        version, greeting = lease.backend.send_proxy, b""
        if version:
            greeting = announcement(version, self.sock, self.facts, self.facts.ip)
        self._hold(lease, sock).start(greeting=greeting, from_client=self._early)

    def _hold(self, lease: Lease, sock: socket.socket) -> Relay:
        self._lease = lease
        self._backend = None
        relay = self.relay = Relay(
            self.lanes.reactor,
            self.sock,
            sock,
            stall_s=self.view.settings.timeouts.body_s,
            on_end=self._ended,
            pipes=self.lanes.pipes,
        )
        relay.hold(lease)
        return relay

    def go_on(self, lease: Lease, sock: socket.socket, moved: MovedConnection) -> None:
        """Instead of `begin`, with the relay of another worker. Raises ValueError."""
        if moved.relay is None:
            raise ValueError("a TCP session without a relay")
        self._since -= moved.age_s
        resume(self._hold(lease, sock), moved.relay)

    def come_back(self) -> None:
        """No other worker took the lifted relay."""
        assert self.relay is not None
        assert self._lease is not None
        self._lease.overdue = False
        self.relay.hold(self._lease)
        self.relay.go_on()
        self.lanes.router.rouse_drains()

    def let_go(self) -> None:
        """Another worker has the lifted relay, and writes down its end."""
        assert self.relay is not None
        assert self._lease is not None
        self.relay.let_go()
        lease, self._lease = self._lease, None
        self.lanes.router.release(lease)
        self.lanes.closed(self)

    def _ended(self, relay: Relay) -> None:
        lease = self._lease
        assert lease is not None
        self._lease = None
        lanes = self.lanes
        if lanes.context.access.is_on:  # finish() counts; a record costs as much as the rest of a short session's end
            end(lanes.context, self._record(error_of(relay), served_by=lease.backend.id, relay=relay), cell=None)
        lanes.router.finish(lease)
        lanes.closed(self)

    def _record(
        self,
        error: str | None,
        reason: str | None = None,
        *,
        served_by: BackendId | None = None,
        relay: Relay | None = None,
    ) -> AccessRecord:
        """Method TCP, the listener as the path, and a status for how it ended."""
        return AccessRecord(
            time=self.lanes.reactor.wall(self._since),
            head=RequestHead(
                b"TCP",
                self.view.settings.name.encode(),
                (self.server_name or "").encode(),
                1,
                False,
                None,
                False,
                [],
                {},
            ),
            status=STATUS_OF.get(error, 502),
            request_bytes=relay.client.received if relay is not None else 0,
            response_bytes=relay.backend.received if relay is not None else 0,
            duration_s=trio.current_time() - self._since,
            served_by=served_by,
            client=self.facts.ip,
            request_id=b"-",
            error=error,
            reason=reason,
        )

    def _refused(self, why: str, *, timed_out: bool = False) -> None:
        self._pass_over(why, timed_out=timed_out)
        self.begin()

    def _pass_over(self, why: str, *, timed_out: bool = False) -> None:
        """That backend, from now on; the next one is tried, or the queue."""
        if self._lease is not None:
            self.lanes.context.unreachable(self._lease.backend, why, timed_out=timed_out)
        self._let_go()

    def _let_go(self) -> None:
        lanes, lease, sock = self.lanes, self._lease, self._backend
        self._lease = self._backend = None
        lanes.reactor.disarm(self)
        if sock is not None:
            lanes.reactor.forget(sock.fileno())
            sock.close()
        if lease is not None:
            lanes.router.release(lease)

    def _key(self, pool: PoolView) -> bytes | None:
        return self.facts.ip if pool.hash_key in (None, "client_ip") and self.facts.ip else None

    def close(self) -> None:
        self._let_go()
        self.sock.close()
        self.lanes.closed(self)

    def abort(self) -> None:
        if self.relay is not None:
            self.relay.abort()
        else:
            self.close()
