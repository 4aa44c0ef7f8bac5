"""A client in the task lane: a connection, exchange after exchange, as long as it has to stay there; or one stream."""

import traceback
from contextlib import suppress
from dataclasses import replace

import trio

from lbproxy.errors import LbproxyError
from lbproxy.policy.grpc_status import grpc_status
from lbproxy.telemetry.access import AccessRecord
from lbproxy.telemetry.events import Notice
from lbproxy.wire.grpc import is_grpc_spelt
from lbproxy.wire.head import Refused, head_of_refused, read_request
from lbproxy.wire.http1 import confirm_request
from lbproxy.wire.pages import ErrorPage
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.context import Context
from lbproxy.worker.ending import count_exchange, end
from lbproxy.worker.handover import LAST_REQUEST_S, ClientSide, Handover
from lbproxy.worker.io.stream import StreamBroken, StreamStalled
from lbproxy.worker.reply import ClientGone
from lbproxy.worker.task.client import Client
from lbproxy.worker.task.exchange import Exchange


async def converse(context: Context, client: Client, handover: Handover | None = None, *, stay: bool = True) -> bool:
    """Serve exchanges, first the one that is handed over, until the client is done; with `stay` False only one.

    True: the connection is fit for another exchange. False: let go of it. The stream stays the caller's to close.
    """
    try:
        while True:
            try:
                exchange = _begun_exchange(context, client, handover) or await _next_exchange(context, client, handover)
            except RefusedRequest as exc:
                return await refuse(context, client, exc.refused, exc.raw)
            handover = None
            if exchange is None:
                return False
            if not await exchange.run():
                if client.away is None and (exchange.linger or client.buffer):
                    await client.linger(upload=exchange.linger)
                return False
            if not stay or client.is_unwanted:
                return True
            await trio.lowlevel.checkpoint()  # what we answer ourselves may never have waited
    except (StreamBroken, StreamStalled):
        return False
    except Exception:
        # Our own mistake, whatever it is, costs this connection and no other one.
        context.emit(Notice(f"a client connection was dropped: {traceback.format_exc(limit=-4).strip()}"))
        return False


async def serve_stream(context: Context, client: ClientSide, raw: bytes, handover: Handover | None = None) -> None:
    """Serve the one request of a stream. `raw`: its head, spelt as one of HTTP/1.1."""
    try:
        if begun := _begun_exchange(context, client, handover):
            await begun.run()
            return
        try:
            head = read_request(raw, context.lines, client.listener.settings.limits.headers)
            confirm_request(raw, head)
        except Refused as refused:
            await answer_refused(context, client, refused, raw)
            return
        await Exchange(context, client, replace(head, is_http2=True), handover).run()
    except Exception:
        context.emit(Notice(f"a stream was dropped: {traceback.format_exc(limit=-4).strip()}"))


class RefusedRequest(LbproxyError):
    """A request that is not forwarded, as far as its bytes have come."""

    def __init__(self, refused: Refused, raw: bytes | bytearray) -> None:
        super().__init__(refused.reason)
        self.refused = refused
        self.raw = raw


async def refuse(context: Context, client: Client, refused: Refused, raw: bytes | bytearray) -> bool:
    """Answer a request that is not forwarded, write it down, and close. Never fit for another exchange."""
    return await answer_refused(context, client, refused, raw) and await linger(client)


async def answer_refused(context: Context, client: ClientSide, refused: Refused, raw: bytes | bytearray) -> bool:
    """Answer a request that is not forwarded, and write it down. `raw`: its bytes, as far as they came. False: the
    client is gone."""
    page = ErrorPage(
        *(refused.status, context.proxy_name, refused.token, refused.reason),
        lines=context.date() + client.hsts,
        grpc_status=grpc_status(refused.status, refused.token) if client.is_stream and is_grpc_spelt(raw) else None,
    )
    reply = client.reply_to(None)
    gone = False
    try:
        size = reply.error(page)
    except ClientGone:
        size, gone = 0, True
    record = AccessRecord(
        time=context.reactor.wall(trio.current_time()),
        head=replace(head_of_refused(raw), is_http2=client.is_stream),
        status=refused.status,
        request_bytes=0,
        response_bytes=size,
        duration_s=client.listener.settings.timeouts.header_s if refused.status == 408 else 0.0,
        served_by=None,
        client=client.facts.ip,
        request_id=b"",
        error=refused.token,
        reason=refused.reason,
    )
    count_exchange(context, record, None)
    end(context, record, cell=None)
    try:
        if gone:
            return False
        await reply.flush(client.listener.settings.timeouts.body_s)
    except ClientGone:
        return False
    return True


async def linger(client: Client) -> bool:
    """The last answer is sent: a reset must not swallow it. Never fit for another exchange."""
    await client.linger(upload=False)
    return False


def _begun_exchange(context: Context, client: ClientSide, handover: Handover | None) -> Exchange | None:
    """The exchange whose request the express lane has sent; None: there is none."""
    if handover is None or handover.sent is None:
        return None
    connection = handover.sent.begun.connection
    if isinstance(connection, BackendConnection):
        with suppress(StreamBroken):  # what the backend said before it broke off decides
            connection.stream.put(handover.sent.unsent)
    exchange = Exchange(context, client, handover.sent.head, handover)
    exchange.continue_with(handover.sent)
    return exchange


async def _next_exchange(context: Context, client: Client, handover: Handover | None) -> Exchange | None:
    """Raises RefusedRequest; None when the client is done."""
    raw: bytes | bytearray | None = client.buffer
    try:
        raw = await (client.read_head(LAST_REQUEST_S) if context.stopping.is_set() else client.read_head())
        if raw is None:
            return None
        head = read_request(raw, context.lines, client.listener.settings.limits.headers)
        confirm_request(raw, head)
    except Refused as refused:
        raise RefusedRequest(refused, raw or b"") from None
    return Exchange(context, client, head, handover)
