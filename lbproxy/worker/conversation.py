"""A client connection in the task lane: exchange after exchange, until one side is done. Closes it."""

import traceback

from lbproxy.telemetry.events import Notice
from lbproxy.wire.head import Refused, read_request
from lbproxy.wire.http1 import confirm_request
from lbproxy.wire.pages import ErrorPage, error_response
from lbproxy.worker.client import Client
from lbproxy.worker.context import Context
from lbproxy.worker.exchange import Exchange
from lbproxy.worker.stream import StreamBroken, StreamStalled


async def converse(context: Context, client: Client) -> None:
    """Serve a client connection, exchange after exchange, until it is done. Closes it."""
    context.clients.add(client)
    try:
        while not context.stopping.is_set():
            try:
                raw = await client.read_head()
                if raw is None:
                    return
                head = read_request(raw, context.lines, client.listener.settings.limits.headers)
                confirm_request(raw, head)
            except Refused as refused:
                await _refuse(context, client, refused)
                return
            exchange = Exchange(context, client, head)
            if not await exchange.run():
                if exchange.linger or client.buffer:
                    await client.linger(upload=exchange.linger)
                return
    except (StreamBroken, StreamStalled):
        return
    except Exception as exc:
        # Our own mistake, whatever it is, costs this connection and no other one.
        context.emit(Notice(f"a client connection was dropped: {traceback.format_exc(limit=-4).strip()} ({exc!r})"))
    finally:
        context.clients.discard(client)
        client.stream.close()


async def _refuse(context: Context, client: Client, refused: Refused) -> None:
    """A message that is not forwarded: its answer, then a lingering close. It is not known who asked for what."""
    page = ErrorPage(refused.status, proxy=context.proxy_name, token=refused.token, reason=refused.reason)
    client.stream.put(error_response(page))
    await client.stream.flush(client.listener.settings.timeouts.body_s)
    await client.linger(upload=False)
