"""The answer to an exchange that failed: a page, the status of a gRPC call, or an honest cut.

Knows the exchange's client and its reply. Knows no backend.
"""

from typing import Protocol

from lbproxy.errors import ProxyError
from lbproxy.policy.grpc_status import grpc_status
from lbproxy.wire.body import Body
from lbproxy.wire.grpc import status_lines
from lbproxy.wire.head import Refused, RequestHead
from lbproxy.wire.pages import ErrorPage
from lbproxy.worker.context import Context
from lbproxy.worker.handover import ClientSide
from lbproxy.worker.reply import Reply
from lbproxy.worker.task.farewell import GoingAway

RETRY_AFTER_S = 1
LAST_WORDS_S = 5.0  # a client that takes nothing does not get the status of its call


class Exchange(Protocol):
    """What is asked of the exchange that failed."""

    context: Context
    client: ClientSide
    head: RequestHead
    request_id: bytes
    body: Body | None
    reply: Reply
    keep: bool
    linger: bool
    status: int
    response_bytes: int
    is_grpc: bool


async def answer_error(exchange: Exchange, error: ProxyError | Refused) -> None:
    """Answer, if no byte of a response has gone out; else end it so that nobody takes a part for the whole. Raises
    ClientGone."""
    client, reply = exchange.client, exchange.reply
    code = grpc_status(error.status, error.token) if exchange.is_grpc else None
    body_s = client.listener.settings.timeouts.body_s
    if reply.begun:
        exchange.keep = False
        if code is None:
            reply.cut()
        else:
            reply.end(status_lines(code, error.reason))
            await reply.flush(min(body_s, LAST_WORDS_S))
        return
    if exchange.body is None:
        exchange.body = client.body_of(exchange.head, 0)
    if not exchange.body.done:
        exchange.keep = False
        exchange.linger = True
    exchange.keep = exchange.keep and not exchange.context.stopping.is_set()
    exchange.status = error.status
    page = ErrorPage(
        error.status,
        proxy=exchange.context.proxy_name,
        token=error.token,
        reason=error.reason,
        accept=b", ".join(exchange.head.fields.get(b"accept", ())),
        request_id=exchange.request_id,
        close=not exchange.keep,
        head_only=exchange.head.method == b"HEAD",
        retry_after_s=RETRY_AFTER_S if error.status == 503 else None,
        minor=exchange.head.minor,
        lines=exchange.context.date() + client.hsts,
        text=error.page if isinstance(error, ProxyError) else "",
        grpc_status=code,
        pushback_ms=error.pushback_ms if isinstance(error, GoingAway) else None,
    )
    exchange.response_bytes = reply.error(page)
    await reply.flush(body_s)
