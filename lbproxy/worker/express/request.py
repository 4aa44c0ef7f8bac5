"""The express lane: simple exchanges without a task. It never decides anything hard: it decides that something is hard.

One record per client connection (record.py): `on_ready` claims and sends, `on_reply` answers (reply.py), `on_body` and
`on_flush` move long bodies (body.py). At the first sign of anything else the exchange goes to the task lane: `_enter`
when nothing has been claimed (the client's bytes go along), `_resume` when the request is wholly or partly sent (lease,
backend connection, unsent bytes and response bytes go along).

Hot: per exchange four system calls and a dozen Python calls. A head is looked at line by line only where it is new: one
that repeats is remembered whole (wire/head_cache.py); one that differs from others in a few values is read by its shape
(wire/head_template.py). All bytes come from the same functions in both lanes. Benchmark: loadtest/hotpath.py.
"""

from collections.abc import Callable
from typing import Any

from lbproxy.model import LeaseKind
from lbproxy.policy.retry import IDEMPOTENT
from lbproxy.settings import EARLY_BODY_BYTES
from lbproxy.wire.body import chunk, last_chunk, request_body
from lbproxy.wire.head import Refused, RequestHead, head_end, read_request
from lbproxy.wire.headers import request_id_of, request_to_backend
from lbproxy.worker.backends.connections import BackendConnection, ConnectFailed, Crowded, begin_connect, finish_connect
from lbproxy.worker.express.reply import ReplySide, reply_too_slow
from lbproxy.worker.io.reactor import AT_LOOK, LOOK_S, READ, WRITE, When
from lbproxy.worker.io.read_size import read_on, room_for
from lbproxy.worker.leases.affinity import hash_key
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.task.attempt import Begun
from lbproxy.worker.task.client import EARLY_BODY_S, head_too_slow

REQUEST = LeaseKind.REQUEST  # an attribute of an enum costs as much as three of these


class ExpressClient(ReplySide):
    __slots__ = ()

    # From the client

    def on_ready(self, mask: int) -> None:
        try:
            data = self.sock.recv(self.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if self._lease is None and data and data == self._bare and not self.buffer:
            if self._repeated is None:
                self._remember()
            self._forward()
        elif self._lease is not None:
            if self.upload_left and data:
                self._upload(data)
            else:
                self._client_speaks_early(data)
        elif not data:
            if self.buffer:
                self._enter(self.buffer, "client_gone")
            else:
                self.close()
        elif self.buffer:
            self._consider_more(data)
        else:
            self._consider(data, 0)

    def _consider_more(self, data: bytes) -> None:
        since = self.moved_at if self._too_late is ExpressClient._body_too_slow else self.lanes.reactor.now
        before, self.buffer = self.buffer, b""
        self._consider(before + data, len(before))
        if self._lease is not None:
            self.started = since

    def on_pipelined(self) -> None:
        """The next request is here already: looked at after everybody else had a turn."""
        if self.buffer and self._reading and self._lease is None and not self._out:
            data, self.buffer = self.buffer, b""
            self._consider(data, 0)

    def _consider(self, data: bytes, seen: int) -> None:
        """Is this a whole, simple request? Then forward it; else wait for the rest, or hand it over.

        The first `seen` bytes were looked at before, without a result.
        """
        lanes, limits = self.lanes, self.view.settings.limits
        if len(data) == self.recv_bytes:
            data = read_on(self, data)
        if lanes.off:
            self._enter(data, "off")
            return
        shaped, size = None, len(data)
        if again := self._read_under is self.view and data.startswith(self.raw):
            head = self.head if self._shaped_head is not None else self.like
            end, length = len(self.raw), head.length
        else:
            shaped = lanes.request_shapes.read(data)
            if shaped is not None and shaped[0].field_lines <= limits.headers and shaped[2] <= limits.header_bytes:
                shape, values, end = shaped
                head, length = shape.like, shape.length(values)
            else:
                shaped = None
                end = self._read_head(data, seen)
                if not end:
                    return
                head, length = self.like, self.like.length
        if head.chunked:
            raw = data[:end]
            self._bare = b""
            if not self._take_chunked(data, end, head):
                return
        elif length is None and end == size:
            raw = self._bare = data
            self.payload = b""
            self.request_bytes = 0
        else:
            length = length or 0
            if length and limits.body_bytes and length > limits.body_bytes:
                self._enter(data, "refused")
                return
            missing = end + length - size
            if missing > 0 and (size - end < EARLY_BODY_BYTES or not lanes.router.buffers_alike):
                self._wait_for_body(data, head.host, shaped[1][0] if shaped is not None else head.target)
                return
            raw = data[:end]
            self._bare = b"" if length else raw
            self.payload = data[end : end + length]
            self.request_bytes = length
            self.upload_left = max(missing, 0)
            if missing < 0:
                self.buffer = data[missing:]
        if not again:
            self.raw = raw
            self._read_under = self.view
            self.like = head
            self._shaped_head = shaped
            self._repeated = None
            self.recv_bytes = room_for(size)
        elif self._repeated is None:
            self._remember()
        self._forward()

    def _read_head(self, data: bytes, seen: int) -> int:
        """Where the head ends that is now in `self.like`; 0 if it was handed over, or the rest is waited for."""
        lanes, limits = self.lanes, self.view.settings.limits
        self.forget_head()
        end = data.find(b"\r\n\r\n") + 4
        try:
            if end < 5:  # no end yet, or nothing before it
                head_end(data, seen, limits.header_bytes)
                self._wait_for_rest(data, self.view.settings.timeouts.header_s, ExpressClient._head_too_slow)
                return 0
            if end > limits.header_bytes:
                self._enter(data, "refused")
                return 0
            raw = data[:end]
            head = self.like = read_request(raw, lanes.lines, limits.headers)
            self._shaped_head = None
        except Refused:
            self._enter(data, "refused")
            return 0
        if head.expects_continue or head.websocket:
            self._enter(data, "upgrade" if head.websocket else "expect")
            return 0
        lanes.request_shapes.learn(raw)
        return end

    def _take_chunked(self, data: bytes, end: int, head: RequestHead) -> bool:
        """A chunked body that is all here is framed anew; what is not complete goes to the task lane as it came."""
        body = request_body(head, self.view.settings.limits.body_bytes)
        try:
            payload = body.feed(data[end:])
        except Refused:
            self._enter(data, "refused")
            return False
        if not body.done:
            self._enter(data, "chunked")
            return False
        self.payload = chunk(payload) + last_chunk(body.trailers)
        self.request_bytes = len(payload)
        self.buffer = body.rest
        return True

    def _remember(self) -> None:
        """The same head as the last one: from now on it is remembered with what is made of it."""
        known = self._repeated = self.lanes.repeats.request(self.raw, self.head, self.facts)
        self.like = known.head
        self.raw = known.raw
        if self._bare:
            self._bare = known.raw

    def _wait_for_body(self, data: bytes, host: bytes, target: bytes) -> None:
        pool = self.lanes.router.route(self.view, host, target)
        if pool is None:
            self._enter(data, "no_route")  # it need not send the rest
        elif pool.buffer_request_bytes != EARLY_BODY_BYTES:
            self._enter(data, "buffer")
        else:
            now = self.lanes.reactor.now
            since = self.moved_at if self._too_late is ExpressClient._body_too_slow else now
            wait_s = min(self.view.settings.timeouts.body_s, since + EARLY_BODY_S - now)
            self._wait_for_rest(data, wait_s, ExpressClient._body_too_slow)

    def _wait_for_rest(self, data: bytes, timeout_s: float, too_late: Callable[[Any], None]) -> None:
        """`timeout_s` in all for a head, from its first byte; a body only has to keep coming."""
        self.buffer = data
        begins = self._too_late is not too_late
        if begins:
            self._too_late = too_late
            self.moved_at = self.lanes.reactor.now
        if begins or too_late is ExpressClient._body_too_slow:
            self.lanes.reactor.arm(self, timeout_s)

    def _head_too_slow(self) -> None:
        self._enter(self.buffer, "slow_head", head_too_slow(self.view.settings.timeouts.header_s))

    def _body_too_slow(self) -> None:
        self._enter(self.buffer, "slow_body")

    # To the backend

    def _forward(self) -> None:
        """Claim a backend, and put the request on a connection to it."""
        lanes, facts, shaped = self.lanes, self.facts, self._shaped_head
        router, reactor = lanes.router, lanes.reactor
        now = reactor.now
        head = self.head if facts.trusted else self.like
        pool = router.unrouted.get(self.view.key)
        if pool is None:
            pool = router.route(self.view, head.host, shaped[1][0] if shaped is not None else head.target)
            if pool is None:
                self._enter_again("no_route")
                return
        key = hash_key(pool.hash_key, self.head, facts) if pool.balance == "hash" else None
        lease = None if router.queues and router.waiting(pool.name) else router.claim(pool, REQUEST, key, now, self)
        if lease is None:
            self._enter_again("queue")
            return
        self._lease = lease
        timeouts = self.timeouts = pool.timeouts
        request_id = self.request_id = request_id_of(head, facts)
        repeated, payload = self._repeated, self.payload
        if repeated is not None:
            data = b"".join((repeated.before, request_id, repeated.behind, payload))
        elif shaped is not None and not facts.trusted:
            data = shaped[0].to_backend(shaped[1], facts, request_id) + payload
        else:
            data = request_to_backend(head, facts, request_id) + payload
        replayable = head.method in IDEMPOTENT and not self.upload_left
        connection = None
        if replayable or self.has_risked:  # else the end of a kept connection would lose it (policy/retry.py)
            connection = lanes.backends.take(lease.backend, timeouts.keepalive_s)
        if connection is None:
            self._connect_and_send(lease, data)
            return
        self._connection = connection
        connection.owner = self
        if not replayable and not connection.is_silent():
            self._give_up("stale")  # it has just ended, and this request could not be sent twice
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._resume("backend_ended")  # whether it may be sent again is for the task lane to decide
            return
        if sent < len(data) or self.upload_left:
            self._sent(data, sent)
            return
        self._too_late = reply_too_slow
        if timeouts.response_s < LOOK_S:
            reactor.arm(self, timeouts.response_s)
        else:
            self.deadline = AT_LOOK

    def _connect_and_send(self, lease: Lease, data: bytes) -> None:
        """On loopback a connection stands before connect() returns: the request is sent at once. Else it waits."""
        reactor = self.lanes.reactor
        try:
            sock = begin_connect(lease.backend.address)
        except Crowded:
            self._give_up("crowded")
            return
        except ConnectFailed as exc:
            self._refused(lease, str(exc))
            return
        if sock is None:
            self._give_up("name")
            return
        connection = self._connection = BackendConnection(lease.backend, sock)
        connection.owner = self
        try:
            if not finish_connect(sock, lease.backend.address):
                self.unsent = data
                if self.upload_left:  # the rest of the body has nowhere to go yet
                    reactor.unregister(self.fd)
                    self._reading = False
                reactor.register_backend(connection.fd, WRITE, When(self.on_connected))
                reactor.arm(self, self.timeouts.connect_s)
                self._too_late = ExpressClient._connect_too_slow
                return
            sent = sock.send(data)
        except (OSError, ConnectFailed) as exc:  # nothing was sent: it may go elsewhere
            self._refused(lease, str(exc))
            return
        reactor.register_backend(connection.fd, READ, connection)
        self._sent(data, sent)

    def on_connected(self, mask: int) -> None:
        connection, lease, data = self._connection, self._lease, self.unsent
        if connection is None or lease is None:
            return
        try:
            if not finish_connect(connection.sock, lease.backend.address):
                return
        except ConnectFailed as exc:
            self._refused(lease, str(exc))
            return
        reactor = self.lanes.reactor
        reactor.modify(connection.fd, READ)
        reactor.handle(connection.fd, connection)
        if self.upload_left:
            self._reading = True
            reactor.register(self.fd, READ, self)
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._resume("backend_ended")
            return
        self._sent(data, sent)

    def _sent(self, data: bytes, sent: int) -> None:
        if self.upload_left or self.like.method not in IDEMPOTENT:
            self.has_risked = True
        if sent < len(data):
            self.unsent = data[sent:]
            self._resume("backpressure")
            return
        self.unsent = b""
        if self.upload_left:
            self._begin_upload()
        else:
            self._wait_for_reply()

    def _wait_for_reply(self) -> None:
        reactor = self.lanes.reactor
        self._too_late = reply_too_slow
        self.moved_at = reactor.now
        reactor.arm(self, self.timeouts.response_s)

    # Handing over

    def _enter(self, data: bytes, why: str, refused: Refused | None = None) -> None:
        """To the task lane, with nothing claimed. `data`: all that the client has said since the last exchange."""
        self.buffer = b""
        self.leave()
        self.lanes.enter(self, data, why, refused)

    def _enter_again(self, why: str) -> None:
        """As _enter, for a request that was read already: the task lane reads it anew, from its first byte."""
        self._enter(self.raw + self.payload + self.buffer, why)

    def _give_up(self, why: str) -> None:
        """Nothing was sent on this lease: let go of it and begin anew in the task lane."""
        lease, connection = self._lease, self._connection
        self._lease = self._connection = None
        if connection is not None:
            self.lanes.reactor.unregister(connection.fd)
            connection.close()
        if lease is not None:
            self.lanes.router.release(lease)
        self._enter_again(why)

    def _refused(self, lease: Lease, why: str) -> None:
        self.lanes.context.unreachable(lease.backend, why)
        self._give_up("connect")

    def _connect_too_slow(self) -> None:
        assert self._lease is not None
        self._refused(self._lease, f"no connection within {self.timeouts.connect_s:g}s")

    def cut(self) -> None:
        """The grace of a drain is over."""
        if self._status:
            self._cut_short("cut")
        else:
            self._resume("cut")

    def _resume(self, why: str, data: bytes = b"") -> None:
        """To the task lane, with the request wholly or partly sent. `data`: what has come of the response."""
        respond_by: float | None = None  # the time of an answer is not begun anew
        if why == "slow_reply":
            respond_by = self.lanes.reactor.now
        elif self._too_late is reply_too_slow:
            respond_by = self.moved_at + self.timeouts.response_s
        self._stop_splicing()
        lease, connection = self.release()
        connection.buffer += data
        self.leave()
        self.lanes.resume(self, Begun(lease, connection, self.timeouts, respond_by=respond_by), why)
