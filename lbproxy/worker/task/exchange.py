"""The task lane: one exchange, phase by phase. Judge, read what is short, claim, try, answer, record.

Complete by itself: whatever the express lane declines comes here. Knows heads, leases and statuses; bytes on their way
to and from one backend are attempt.py's. Errors of every kind end here, in an answer or in an honest cut.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import trio

from lbproxy.errors import LbproxyError, ProxyError
from lbproxy.link.messages import Try
from lbproxy.model import BackendId, BackendView, LeaseKind, PoolView
from lbproxy.policy.retry import REASONS, Retry, after_no_answer, may_replay
from lbproxy.telemetry.access import AccessRecord
from lbproxy.wire.body import Body
from lbproxy.wire.grpc import is_grpc
from lbproxy.wire.head import Refused, RequestHead, ResponseHead, passed_upgrades
from lbproxy.wire.headers import client_of, is_dated, request_id_of, sets_hsts
from lbproxy.worker.backends.connections import BackendConnection, ConnectFailed, ConnectTimedOut
from lbproxy.worker.backends.http2_stream import BackendStream
from lbproxy.worker.backends.secure import Untrusted
from lbproxy.worker.context import Context
from lbproxy.worker.ending import count_exchange, end
from lbproxy.worker.handover import CLIENT_CLOSED, EARLY_BODY_S, Begun, ClientSide, Handover, Sent
from lbproxy.worker.io.stream import StreamBroken, StreamStalled
from lbproxy.worker.leases.affinity import key_of
from lbproxy.worker.leases.routes import answers_itself
from lbproxy.worker.reply import ClientGone, Reply
from lbproxy.worker.task.attempt import Attempt
from lbproxy.worker.task.error_answer import answer_error
from lbproxy.worker.task.farewell import GoingAway
from lbproxy.worker.task.own_answer import answer_itself
from lbproxy.worker.task.response_heads import NoAnswer

FORGIVEN_MOST = 3  # attempts of one request
ENDED_S = 0.5

T = TypeVar("T")


class LeftUnanswered(LbproxyError):
    """A request that may not be replayed lost a kept connection: its client's own kept connection ends, too."""


class Exchange:
    """One request and its response, on a client connection that outlives it."""

    __slots__ = (
        "_avoid",
        "_begun",
        "_cell",
        "_cookie",
        "_fresh",
        "_has_failed",
        "_has_stalled",
        "_pool_name",
        "backend",
        "body",
        "client",
        "context",
        "early",
        "error",
        "head",
        "is_grpc",
        "keep",
        "linger",
        "reason",
        "reply",
        "request_bytes",
        "request_id",
        "response_bytes",
        "started",
        "status",
        "tries",
        "upgrades",
    )

    def __init__(
        self, context: Context, client: ClientSide, head: RequestHead, handover: Handover | None = None
    ) -> None:
        """`handover`: of the express lane, if it has begun this exchange."""
        self.context = context
        self.client = client
        self.head = head
        self.request_id = request_id_of(head, client.facts)
        self.body: Body | None = None
        self.upgrades: tuple[bytes, ...] = ()  # the protocols that the backend is asked to switch to
        self.early = bytearray()  # payload in hand before a backend was claimed
        self.keep = head.keep_alive
        self.reply: Reply = client.reply_to(head)
        self.is_grpc = client.is_stream and is_grpc(head)  # over HTTP/1 it cannot be
        self.linger = False  # the client may still be sending: let go of it slowly
        self.status = 0
        self.error: str | None = None
        self.reason: str | None = None  # of the error
        self.request_bytes = 0
        self.response_bytes = 0
        self.backend: BackendId | None = None
        self._cell: int | None = None  # the grid's column it is counted in: its backend's, else its pool's
        self.tries: tuple[Try, ...] = ()  # attempts that failed
        self._begun: Begun | None = None
        self._avoid: tuple[BackendView, ...] = ()  # backends that left this request without an answer
        self._has_failed = False
        self._pool_name: str | None = None
        self._cookie = b""  # the line that sets it, behind a CRLF; empty: none is set
        self._fresh = False  # a kept connection has ended: the next try takes a fresh one
        came_at = handover.came_at if handover is not None else None
        self._has_stalled = handover is not None and handover.has_stalled
        self.started = trio.current_time() if came_at is None else came_at

    def continue_with(self, sent: Sent) -> None:
        """The second entry: the express lane has sent the request, wholly or partly."""
        self.request_id, crlf, lines = sent.own.partition(b"\r\n")
        self._cookie = crlf + lines
        self.body = self.client.body_of(self.head, 0)
        self.request_bytes = sent.request_bytes
        if self.client.is_stream:
            self.early += sent.payload  # as the client sent it, and all of it is there
        elif self.head.chunked:
            self.early += self.body.feed(sent.payload)
        else:
            self.early += sent.payload
            self.body.skip(sent.request_bytes)
        self.started = sent.started
        self._begun = replace(sent.begun, sent=True)
        self._pool_name = sent.begun.lease.backend.id.pool

    def body_wait_s(self) -> float:
        """How long the client may be silent in the body, from now."""
        has_stalled, self._has_stalled = self._has_stalled, False
        return 0.0 if has_stalled else self.client.listener.settings.timeouts.body_s

    async def run(self) -> bool:
        """From the request's head to the last byte of the response; True if the connection can serve another one."""
        try:
            try:
                await self._serve()
            except (ProxyError, Refused) as exc:
                if isinstance(exc, Refused):
                    self.keep = self.keep and exc.status >= 500  # a backend's nonsense is not the client's fault
                self.error, self.reason = exc.token, exc.reason
                self._has_failed = exc.status >= 500 and not isinstance(exc, GoingAway)
                await answer_error(self, exc)
        except LeftUnanswered as exc:
            self.keep = False
            self.status, self.error, self.reason = 502, "connection_terminated", str(exc)
            self._has_failed = True
        except (ClientGone, StreamBroken, StreamStalled):
            self.keep = False
            self.error = self.error or "client_gone"
            if not self.reply.begun:
                self.status = CLIENT_CLOSED
        except BaseException as exc:
            self.keep = False
            # Cancelled comes in a group from within a nursery; what is an Exception is a mistake of ours.
            self.error = "proxy_internal_error" if isinstance(exc, Exception) else "cut"
            self._has_failed = True
            raise
        finally:
            if self.client.away is None:
                self.end()
        return self.keep and self.client.away is None

    def own_lines(self, head: ResponseHead) -> bytes:
        """What belongs to this answer alone: see response_to_client."""
        own, hsts = self.request_id, self.client.hsts
        if self._cookie and (head.status >= 200 or head.status == 101):
            own += self._cookie
        if hsts and head.status >= 200 and not sets_hsts(head):
            own += hsts
        return own if is_dated(head) else own + self.context.date()

    # The phases

    async def _serve(self) -> None:
        if self._begun is None:
            if answers_itself(self.client.listener.settings, self.head.target, self.context.router.challenges):
                return await answer_itself(self)
            pool = self._pool()  # raises where nobody takes it: before its body is read
            self.body = self.client.body_of(self.head, self.client.listener.settings.limits.body_bytes)
            if not self.head.expects_continue:
                await self._read_early_body(0 if self.is_grpc else pool.buffer_request_bytes)
        attempts = forgiven = 0
        while True:
            try:
                return await self._attempt()
            except (NoAnswer, Untrusted) as exc:
                self._note_try(exc.backend, str(exc))
                attempts += not exc.reused
                self._fresh = True
                left = self._pool().retry_attempts + forgiven - attempts
                if left <= 0 and forgiven < FORGIVEN_MOST and await self._was_unread(exc):
                    forgiven += 1
                    left += 1
                replayable = self.may_replay or (not exc.was_sent and self.request_bytes == len(self.early))
                follows = after_no_answer(reused=exc.reused, replayable=replayable, attempts_left=left)
                if follows is Retry.CLOSE and not self.client.is_stream:
                    raise LeftUnanswered(str(exc)) from exc
                if follows in (Retry.FAIL, Retry.CLOSE):
                    raise ProxyError(502, exc.token, str(exc)) from exc
                if follows is Retry.ELSEWHERE:
                    self._avoid = (*self._avoid, exc.backend)
                self.context.tally.note("retry", exc.backend.id.pool, REASONS[follows])

    async def _was_unread(self, exc: NoAnswer | Untrusted) -> bool:
        """The backend has ended before it read the request: that is no attempt.

        Who ends resets what waits in its accept queue, and what is sent again may meet the next one that ends. Who has
        read a request and ended because of it does not reset: its connections end. (A reset with a part unread cannot
        be told apart: hence FORGIVEN_MOST.) Control says within a moment which backends have ended.
        """
        if exc.reused or not exc.was_reset or not self.may_replay:
            return False
        return await self._while_client_stays(lambda: self.context.router.leaves(exc.backend, ENDED_S))

    def _pool(self) -> PoolView:
        """The pool in the table in force: it may change whenever this task has waited."""
        pool = self.context.router.route(self.client.listener, self.head.host, self.head.target)
        if pool is None:
            raise ProxyError(404, "destination_not_found", "no route takes this request")
        self._pool_name = pool.name
        if self.backend is None:
            self._cell = pool.cell
        return pool

    async def _read_early_body(self, most_bytes: int) -> None:
        """A short body is complete before a backend is claimed: a slow client holds a connection, not a backend.

        A body that is not complete after EARLY_BODY_S streams: a client may wait for an answer before it says more.
        """
        client, body = self.client, self.body
        assert body is not None
        if body.done:
            return
        self.take_payload()
        if not most_bytes:
            return
        streams_at = self.started + EARLY_BODY_S
        while not body.done and len(self.early) < most_bytes and (now := trio.current_time()) < streams_at:
            stalls_at = now + self.body_wait_s()
            with trio.move_on_at(min(stalls_at, streams_at)):
                if not await client.more():
                    raise ClientGone("the client went away in the middle of its body")
                self.take_payload()
                continue
            if stalls_at <= streams_at:
                raise ProxyError(408, "http_request_error", "the request body stalled")

    def take_payload(self) -> None:
        """Move what has come of the body from the client's buffer to `early`; what is behind it stays in the buffer."""
        self.early += self.feed_body()

    def feed_body(self) -> bytes:
        """The payload in what the client has sent so far. Raises Refused."""
        body, buffer = self.body, self.client.buffer
        assert body is not None
        if body.done or not buffer:
            return b""
        data = bytes(buffer)
        buffer.clear()
        payload = body.feed(data)
        self.request_bytes += len(payload)
        if body.done:
            buffer += body.rest
        return payload

    @property
    def may_replay(self) -> bool:
        """The whole request is in hand, and may reach a backend twice."""
        body = self.body
        return may_replay(self.head.method) and body is not None and body.done and self.request_bytes == len(self.early)

    async def _attempt(self) -> None:
        """Claim, connect, exchange. Raises NoAnswer."""
        begun, self._begun = self._begun, None
        since = trio.current_time()
        while begun is None:
            begun = await self._claim_and_connect(since)
        backend = begun.lease.backend
        self.backend, self._cell = backend.id, backend.cell
        await Attempt(self, begun).run()

    async def _claim_and_connect(self, since: float) -> Begun | None:
        """None when the backend that was claimed could not be reached: it is passed over now. All tries together may
        wait as long as the queue allows, from `since`.
        """
        router, backends = self.context.router, self.context.backends
        pool = self._pool()
        self.upgrades = passed_upgrades(self.head, pool.upgrades)
        if self.head.upgrades and not self.upgrades:
            self._forgo_upgrade(f"this pool does not pass {self.head.upgrades[0].decode()}")
        kind = LeaseKind.WEBSOCKET if self.upgrades else LeaseKind.REQUEST  # of every upgrade, until its 101
        key = key_of(pool, self.head, self.client.facts) if pool.is_keyed else None
        lease = None if router.waiting(pool.name) else router.claim(pool, kind, key, avoid=self._avoid)
        if lease is None:
            lease = await self._while_client_stays(lambda: router.wait_claim(pool.name, kind, key, since))
        self._cookie = router.cookie(lease, key, self.client.facts.proto) if key is not None else b""
        connection: BackendConnection | BackendStream | None = None
        try:
            if lease.backend.is_http2:
                stream = await self.context.shared.open(lease.backend, pool.timeouts, fresh=self._fresh)
                if self.upgrades and not await stream.takes_tunnel(pool.timeouts.connect_s):
                    self._forgo_upgrade("the backend does not take extended CONNECT (RFC 8441)")
                connection = stream
            elif not self._fresh and (self.client.has_risked or self.may_replay):
                connection = backends.take_checked(lease.backend, pool.timeouts.keepalive_s)
            if connection is None:
                connection = await self.context.connect(lease.backend, pool.timeouts.connect_s)
        except ConnectFailed as exc:
            self._note_try(lease.backend, str(exc))
            self.context.unreachable(lease.backend, str(exc), timed_out=isinstance(exc, ConnectTimedOut))
            return None
        finally:
            if connection is None:
                router.release(lease)
        if not self.may_replay:
            self.client.has_risked = True
        return Begun(lease, connection, pool.timeouts)

    def _forgo_upgrade(self, why: str) -> None:
        """HTTP/1 may be answered as if no upgrade was asked for; an extended CONNECT asks for nothing else."""
        if self.head.is_http2:
            raise ProxyError(501, "http_upgrade_failed", why)
        self.upgrades = ()

    def _note_try(self, backend: BackendView, why: str) -> None:
        self.tries += (Try(str(backend.id), why, trio.current_time() - self.started),)

    async def _while_client_stays(self, wait: Callable[[], Awaitable[T]]) -> T:
        """The result of `wait()`, unless the client goes away first (ClientGone)."""
        outcome: list[T] = []
        gone = False

        async def watch(scope: trio.CancelScope) -> None:
            nonlocal gone
            try:
                await self.client.watch()
            except ClientGone:
                gone = True
                scope.cancel()

        failure: ProxyError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            try:
                outcome.append(await wait())
            except ProxyError as exc:
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if gone and not outcome:
            raise ClientGone("the client went away while it waited for a backend")
        return outcome[0]

    # The end

    def end(self) -> None:
        """The last byte of the answer has passed, or it failed."""
        record = self.record()
        count_exchange(self.context, record, self._pool_name)
        failed = (self._pool_name or "") if self._has_failed else None
        end(self.context, record, cell=self._cell, failed=failed, tries=self.tries)

    def record(self) -> AccessRecord:
        """The access record of the exchange as far as it has come."""
        return AccessRecord(
            time=self.context.reactor.wall(self.started),
            head=self.head,
            status=self.status,
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            duration_s=trio.current_time() - self.started,
            served_by=self.backend,
            client=client_of(self.head, self.client.facts),
            request_id=self.request_id,
            error=self.error,
            reason=self.reason,
        )
