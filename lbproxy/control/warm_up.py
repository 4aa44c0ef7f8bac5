"""`reload.warm_up`: requests to a new backend after it is ready and before it is proved. Nobody judges the answers."""

from collections.abc import Sequence

import trio

from lbproxy import http2_client
from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.http2_client import Http2Ask
from lbproxy.http_client import Ask, ask, connect
from lbproxy.settings import PoolSettings
from lbproxy.wire.proxy_protocol import own_header

WARM_UP_S = 5.0  # for all of them
MOST_BYTES = 16 * 1024 * 1024


async def warm_up(address: Address, paths: Sequence[str], settings: PoolSettings) -> None:
    """One after the other."""
    host = settings.health.host or address.authority
    fields = (("Host", host), ("User-Agent", "lbproxy-warm-up"))
    with trio.move_on_after(WARM_UP_S) as limit:
        for path in paths:
            try:
                stream = await connect(address, tls=settings.tls, protocol="h2" if settings.protocol == "h2" else "")
                async with stream:
                    if settings.protocol != "http/1.1":
                        scheme = "https" if address.secure else "http"
                        asked = Http2Ask("GET", path, host, fields[1:], scheme=scheme)
                        await http2_client.ask(stream, asked, most_bytes=MOST_BYTES, body_s=WARM_UP_S)
                        continue
                    request = Ask("GET", path, fields, greeting=own_header(settings.send_proxy))
                    bare_lf = settings.accept_bare_lf
                    await ask(stream, request, most_bytes=MOST_BYTES, body_s=WARM_UP_S, accept_bare_lf=bare_lf)
            except (LbproxyError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                if limit.cancel_called:
                    return
