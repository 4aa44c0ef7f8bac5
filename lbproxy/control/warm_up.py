"""`reload.warm_up`: requests to a new backend after it is ready and before it is proved. Nobody judges the answers."""

from collections.abc import Sequence

import trio

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.settings import PoolSettings
from lbproxy.supervise.backend_get import connect_to, get

WARM_UP_S = 5.0  # for all of them
MOST_BYTES = 16 * 1024 * 1024


async def warm_up(address: Address, paths: Sequence[str], settings: PoolSettings) -> None:
    """One after the other."""
    fields = (("User-Agent", "lbproxy-warm-up"),)
    with trio.move_on_after(WARM_UP_S) as limit:
        for path in paths:
            try:
                stream = await connect_to(address, settings)
                async with stream:
                    await get(stream, address, settings, path, fields, most_bytes=MOST_BYTES, body_s=WARM_UP_S)
            except (LbproxyError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                if limit.cancel_called:
                    return
