"""A client connection in the task lane: exchange after exchange, as long as it has to stay there."""

import traceback

import trio

from lbproxy.telemetry.events import Notice
from lbproxy.wire.head import Refused, read_request
from lbproxy.wire.http1 import confirm_request
from lbproxy.wire.pages import ErrorPage, error_response
from lbproxy.worker.context import Context
from lbproxy.worker.io.stream import StreamBroken, StreamStalled
from lbproxy.worker.task.client import LAST_REQUEST_S, Client
from lbproxy.worker.task.exchange import Exchange


async def converse(context: Context, client: Client, begun: Exchange | None = None, *, stay: bool = True) -> bool:
    """Serve exchanges, `begun` first, until the client is done; with `stay` False only one.

    True: the connection is fit for another exchange. False: let go of it. The stream stays the caller's to close.
    """
    try:
        while True:
            try:
                exchange = begun or await _next_exchange(context, client)
            except Refused as refused:
                return await refuse(context, client, refused)
            begun = None
            if exchange is None:
                return False
            if not await exchange.run():
                if client.away is None and (exchange.linger or client.buffer):
                    await client.linger(upload=exchange.linger)
                return False
            if not stay:
                return True
            await trio.lowlevel.checkpoint()  # what we answer ourselves may never have waited
    except (StreamBroken, StreamStalled):
        return False
    except Exception:
        # Our own mistake, whatever it is, costs this connection and no other one.
        context.emit(Notice(f"a client connection was dropped: {traceback.format_exc(limit=-4).strip()}"))
        return False


async def refuse(context: Context, client: Client, refused: Refused) -> bool:
    """Answer a message that is not forwarded, then let go. It is not known who asked for what."""
    page = ErrorPage(refused.status, proxy=context.proxy_name, token=refused.token, reason=refused.reason)
    try:
        client.stream.put(error_response(page))
        await client.stream.flush(client.listener.settings.timeouts.body_s)
    except (StreamBroken, StreamStalled):
        return False
    return await linger(client)


async def linger(client: Client) -> bool:
    """The last answer is sent: a reset must not swallow it. Never fit for another exchange."""
    await client.linger(upload=False)
    return False


async def _next_exchange(context: Context, client: Client) -> Exchange | None:
    """Raises Refused; None when the client is done."""
    raw = await (client.read_head(LAST_REQUEST_S) if context.stopping.is_set() else client.read_head())
    if raw is None:
        return None
    head = read_request(raw, context.lines, client.listener.settings.limits.headers)
    confirm_request(raw, head)
    return Exchange(context, client, head)
