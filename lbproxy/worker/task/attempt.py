"""One exchange with one backend over one connection: the request goes there, the response comes back.

Two sides run beside each other: the client's (the rest of an upload, then watching whether the client is still there)
and the backend's (interim responses, the head, the body). Memory is bounded to 64 KiB per direction; a side that cannot
be written to stops the reading of the other. Knows nothing of choosing a backend and of error pages.

It can be entered with the request unsent, or (`Begun.sent`) with the request on its way and response bytes in the
connection's buffer.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from lbproxy.errors import LbproxyError, ProxyError
from lbproxy.model import LeaseKind
from lbproxy.telemetry.access import AccessRecord, for_access
from lbproxy.wire.body import Body
from lbproxy.wire.head import Refused, RequestHead, ResponseHead
from lbproxy.wire.upgrades import is_one_of
from lbproxy.worker.context import Context
from lbproxy.worker.handover import Begun, ClientSide, Upgrade, unnoticed
from lbproxy.worker.io.stream import StreamBroken, StreamStalled
from lbproxy.worker.leases.drain import STALLED_S
from lbproxy.worker.reply import ClientGone, Reply
from lbproxy.worker.task.backend_side import Asked
from lbproxy.worker.task.backend_sides import side_of
from lbproxy.worker.task.farewell import CallFarewell, EventFarewell, Farewell, GoingAway, cut_error
from lbproxy.worker.task.response_heads import is_to_blame
from lbproxy.worker.task.time_limits import NEVER, DeadlinePassed, limits_of_call, time_limits

BUFFER_BYTES = 64 * 1024
MAX_INTERIM = 16


class Exchange(Protocol):
    """What an attempt asks of the exchange that it is made for."""

    context: Context
    client: ClientSide
    head: RequestHead
    request_id: bytes
    body: Body | None
    upgrades: tuple[bytes, ...]
    early: bytearray
    reply: Reply
    keep: bool
    linger: bool
    status: int
    request_bytes: int
    response_bytes: int
    started: float
    is_grpc: bool

    @property
    def may_replay(self) -> bool: ...
    def feed_body(self) -> bytes: ...
    def body_wait_s(self) -> float: ...
    def own_lines(self, head: ResponseHead) -> bytes: ...
    def record(self) -> AccessRecord: ...


class Attempt:
    def __init__(self, exchange: Exchange, begun: Begun) -> None:
        self._exchange = exchange
        self._lease = begun.lease
        self._side = side_of(exchange, begun)
        if exchange.is_grpc:
            self._limits = limits_of_call(exchange.head, begun.timeouts, exchange.started)
            self._call: CallFarewell | None = CallFarewell(exchange.request_id, begun.lease)
        else:
            self._limits = time_limits(begun.timeouts)
            self._call = None
        self._begun = begun.sent
        self._respond_by = begun.respond_by
        self._is_sent = False  # to its last byte
        # Of the response head; starts to run when the request is sent.
        self._deadline = trio.CancelScope(deadline=self._limits.ends_at)
        self._may_go_on = False  # the backend has said 100
        self._patience = trio.CancelScope()  # of the wait for more of the request's body
        self._trouble: LbproxyError | None = None
        self._cut = False
        self._upgraded: ResponseHead | None = None  # the 101: from now on it is a relay's
        self._farewell: Farewell | None = self._call  # of an answer that may have no end
        self._waiting: trio.CancelScope | None = None  # for more of a body
        self._is_headless = True  # the final head has not come
        self._released = False

    async def run(self) -> None:
        """Until the response is with the client, or something went wrong: ProxyError, Refused, ClientGone,
        NoAnswer. The lease is released and the connection kept or closed, whatever happens.
        """
        self._exchange.client.lease = self._lease
        try:
            if self._lease.overdue:
                raise self._cut_error()  # its grace ended while we were connecting
            body = self._exchange.body
            assert body is not None
            self._is_sent = body.done and (self._begun or not body.trailers)
            if not self._begun:
                self._put_request()
            async with trio.open_nursery() as nursery:
                self._lease.on_cut = lambda: self._be_cut(nursery.cancel_scope)
                self._exchange.client.on_left = lambda: self._be_left(nursery.cancel_scope)
                nursery.start_soon(self._guarded, self._client_side, nursery.cancel_scope)
                await self._guarded(self._backend_side, nursery.cancel_scope)
                nursery.cancel_scope.cancel()
            if self._trouble is not None:
                if is_to_blame(self._trouble):
                    self._exchange.context.errors.note(self._lease.backend, str(self._trouble))
                raise self._trouble
            if self._cut:
                raise self._cut_error()
            if self._upgraded is not None:
                self._exchange.client.away = self._upgrade(self._upgraded)
                self._released = True  # the relay does it
        finally:
            self._exchange.client.on_left = unnoticed
            self._release(reusable=False)

    def _upgrade(self, head: ResponseHead) -> Upgrade:
        exchange = self._exchange
        switched = exchange.reply.switched(head, exchange.own_lines(head))
        return Upgrade(
            lease=self._lease,
            client=exchange.client.relay_end(),
            from_backend=self._side.take_received(),
            backend=self._side.relay_end(),
            head=switched,
            from_client=bytes(exchange.client.buffer),
            protocol=head.upgrade,
            record=exchange.record()._replace(head=for_access(exchange.head)),
            started=exchange.started,
        )

    async def _guarded(self, side: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        """The first trouble of either side ends both."""
        try:
            await side()
        except LbproxyError as exc:
            self._trouble = self._trouble or exc
            scope.cancel()

    def _be_cut(self, scope: trio.CancelScope) -> None:
        self._cut = True
        scope.cancel()

    def _be_left(self, scope: trio.CancelScope) -> None:
        """The client of a stream has left: the backend is free at once, also where it does not read."""
        self._trouble = self._trouble or ClientGone("the client has left")
        scope.cancel()

    def _cut_error(self) -> ProxyError:
        exchange = self._exchange
        return cut_error(begun=exchange.reply.begun, may_replay=exchange.may_replay, is_grpc=exchange.is_grpc)

    def _release(self, *, reusable: bool) -> None:
        if self._released:
            return
        self._released = True
        self._side.release(reusable=reusable)
        self._exchange.client.lease = None
        self._lease.forget()  # it knows how to cut us, and we know it: nobody would free either before the next gc
        self._exchange.context.router.release(self._lease)

    # The client's side: the request on its way

    async def _client_side(self) -> None:
        await self._flush_backend()
        await self._send_rest()
        if self._call is not None:
            self._call.may_ask_more = False
        self._start_clock()
        await self._exchange.client.watch()

    def _put_request(self) -> None:
        """The head, and what is in hand of the body: before anything is read, so that no answer comes unasked."""
        exchange = self._exchange
        asked = Asked(exchange.head, exchange.client, exchange.request_id, exchange.upgrades)
        self._side.put_request(asked, bytes(exchange.early), end=self._is_sent)

    async def _send_rest(self) -> None:
        """What of the body was not in hand when the backend was claimed."""
        exchange, body = self._exchange, self._exchange.body
        assert body is not None
        if exchange.head.expects_continue:
            self._start_clock()  # the answer may come before the body does
        while not body.done:
            payload = await self._more_payload()
            self._is_moving()
            self._stop_clock()
            if payload:
                if self._call is not None:
                    self._call.asked_at = trio.current_time()
                self._keep_early(payload)
                self._side.put(payload)
                await self._flush_moving()
        if not self._is_sent:
            self._side.put_end(body.trailers)
            await self._flush_moving()
        self._is_sent = True

    async def _more_payload(self) -> bytes:
        exchange = self._exchange
        if not exchange.client.buffer:
            alive = False
            with self._patience:
                if self._call is not None:
                    is_stream = self._lease.kind is LeaseKind.STREAM
                    self._patience.deadline = NEVER if is_stream else trio.current_time() + STALLED_S
                elif not exchange.head.expects_continue or self._may_go_on:  # else it waits for the backend's word
                    self._patience.deadline = trio.current_time() + exchange.body_wait_s()
                alive = await exchange.client.more()
            patience, self._patience = self._patience, trio.CancelScope()
            if patience.cancelled_caught:
                if self._call is not None:
                    self._becomes_stream()
                    return b""
                raise ProxyError(408, "http_request_error", "the request body stalled")
            if not alive:
                raise ClientGone("the client went away in the middle of its body")
        return exchange.feed_body()

    def _keep_early(self, payload: bytes) -> None:
        """As long as the backend may refuse the request, and it is short, it is kept to be sent elsewhere."""
        exchange, size = self._exchange, len(self._exchange.early) + len(payload)
        if self._side.may_refuse and size <= BUFFER_BYTES and size == exchange.request_bytes:
            exchange.early += payload

    async def _flush_moving(self) -> None:
        if self._side.takes:
            self._lease.moved_at = trio.current_time()
            await self._flush_backend()

    async def _flush_backend(self) -> None:
        try:
            await self._side.flush(self._limits.idle_s)
        except StreamStalled as exc:
            raise ProxyError(504, "connection_write_timeout", str(exc)) from exc

    def _start_clock(self) -> None:
        ends_at = self._limits.ends_at
        if self._deadline.deadline == ends_at:
            by = self._respond_by
            by = trio.current_time() + self._limits.response_s if by is None else by
            self._deadline.deadline = min(by, ends_at)

    def _stop_clock(self) -> None:
        self._deadline.deadline = self._limits.ends_at

    # The backend's side: the response on its way

    async def _backend_side(self) -> None:
        exchange = self._exchange
        head = await self._final_head()
        self._is_headless = False
        if not self._side.may_refuse:
            exchange.early.clear()  # it is not sent again, and the answer may take hours
        if head.status == 101:
            exchange.status = head.status
            self._upgraded = head
            return
        if self._lease.kind is LeaseKind.WEBSOCKET:
            exchange.context.router.change_kind(self._lease, LeaseKind.REQUEST)  # the upgrade was declined
        body, reply = self._side.body(head), exchange.reply
        request_body = exchange.body
        assert request_body is not None
        if not request_body.done:
            exchange.linger = True  # an early answer: the client is still sending
        exchange.keep = (
            exchange.keep and reply.can_keep(head) and request_body.done and not exchange.context.stopping.is_set()
        )
        exchange.status = head.status
        if head.event_stream and head.length is None:
            self._farewell = EventFarewell()
            self._becomes_stream()
        elif self._call is not None and not request_body.done:
            self._becomes_stream()
        reply.head(head, exchange.own_lines(head), keep=exchange.keep)
        await self._relay_body(body)
        self._release(reusable=self._is_sent and body.done and head.keep_alive and not body.rest and not body.until_eof)
        await self._flush_client()

    async def _relay_body(self, body: Body) -> None:
        exchange, reply = self._exchange, self._exchange.reply
        data = self._side.take_received()
        while True:
            payload = body.feed(data) if data or body.done else b""
            if self._farewell is not None and not body.done:
                payload = self._farewell.passes(payload, trio.current_time())
            exchange.response_bytes += len(payload)
            reply.data(payload)
            if body.done or self._is_over:
                break
            reply.push()
            if reply.pending > BUFFER_BYTES:
                await self._flush_client()
            self._is_moving()
            data = await self._more_response()
            if not data and not self._is_over:
                body.eof()  # raises Refused when it is not the end
                if body.done:
                    break
        over = None if body.done else self._farewell
        reply.end(body.trailers if over is None else over.trailers(trio.current_time()))

    def _becomes_stream(self) -> None:
        """Nothing says when it ends: a drain tells it goodbye."""
        if self._lease.kind is not LeaseKind.STREAM:
            self._exchange.context.router.change_kind(self._lease, LeaseKind.STREAM, self._say_goodbye)

    def _say_goodbye(self, window_ends: float) -> None:
        assert self._farewell is not None
        self._farewell.tell(trio.current_time(), window_ends)
        if self._waiting is not None:
            self._waiting.cancel()
        elif self._is_headless:
            self._deadline.cancel()

    @property
    def _is_over(self) -> bool:
        return self._farewell is not None and self._farewell.is_over(trio.current_time())

    def _is_moving(self) -> None:
        """A body that goes on is a transfer: while it moves, its drain is patient."""
        if self._lease.kind is LeaseKind.REQUEST:
            self._exchange.context.router.change_kind(self._lease, LeaseKind.TRANSFER)

    async def _final_head(self) -> ResponseHead:
        """Interim responses are passed on as they come; the final head is returned."""
        with self._deadline:
            for passed_on in range(MAX_INTERIM + 1):
                head = await self._side.next_head()
                if head.status >= 200:
                    return head
                if head.status == 101:
                    self._refuse_unasked_upgrade(head)
                    await self._flush_client()
                    return head
                if passed_on < MAX_INTERIM:
                    self._put_interim(head)
            raise Refused(502, "http_protocol_error", f"more than {MAX_INTERIM} interim responses")
        now = trio.current_time()
        if self._call is not None and self._call.was_told:
            raise GoingAway(self._call.pushback_ms(now))
        if now >= self._limits.ends_at:
            raise DeadlinePassed
        reason = f"no response head within {self._limits.response_s:g}s"
        raise ProxyError(504, "http_response_timeout", reason)

    def _refuse_unasked_upgrade(self, head: ResponseHead) -> None:
        if not is_one_of(head.upgrade, self._exchange.upgrades):
            raise Refused(502, "http_upgrade_failed", "the backend changed the protocol unasked")
        if not self._is_sent or self._side.pending:
            raise Refused(502, "http_upgrade_failed", "the backend changed the protocol in the middle of the request")

    def _put_interim(self, head: ResponseHead) -> None:
        exchange = self._exchange
        if head.status == 100 and exchange.body is not None and not exchange.body.done:
            self._may_go_on = True
            self._patience.deadline = trio.current_time() + exchange.body_wait_s()
            self._stop_clock()
        exchange.reply.interim(head, exchange.own_lines(head))

    async def _more_response(self) -> bytes:
        """b"" at the end, or when the farewell is over."""
        farewell, limits = self._farewell, self._limits
        now = self._lease.moved_at = trio.current_time()
        stalls_at = min(now + limits.idle_s, limits.ends_at)
        while farewell is None or not farewell.is_over(now):
            if self._call is not None and self._call.is_endless(now):
                self._becomes_stream()
            if now >= limits.ends_at:
                raise DeadlinePassed
            if now >= stalls_at:
                reason = f"the response body stalled for {limits.idle_s:g}s"
                raise ProxyError(504, "connection_read_timeout", reason)
            until = stalls_at if farewell is None else min(stalls_at, farewell.looks_at())
            try:
                with trio.CancelScope(deadline=until) as self._waiting:
                    return await self._side.receive(self._exchange.client.read_bytes)
            except StreamBroken as exc:
                raise Refused(502, "http_response_incomplete", f"the backend broke off in its body: {exc}") from exc
            finally:
                self._waiting = None
            now = trio.current_time()
        return b""

    async def _flush_client(self) -> None:
        await self._exchange.reply.flush(self._exchange.client.listener.settings.timeouts.body_s)
