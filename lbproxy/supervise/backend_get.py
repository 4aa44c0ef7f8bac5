"""One GET to a backend, in the protocol that its pool speaks: a probe's, or a warm-up's.

Knows an address and the pool's settings. What the answer means is the caller's to say.
"""

import trio

from lbproxy import http2_client
from lbproxy.address import Address
from lbproxy.http2_client import Http2Answer, Http2Ask
from lbproxy.http_client import Answer, Ask, ask, connect
from lbproxy.settings import HealthSettings, PoolSettings
from lbproxy.wire.proxy_protocol import own_header


async def connect_to(address: Address, settings: PoolSettings) -> trio.abc.Stream:
    """Raises what http_client.connect() raises."""
    return await connect(address, tls=settings.tls, protocol="h2" if settings.protocol == "h2" else "")


async def get(
    stream: trio.abc.Stream,
    address: Address,
    settings: PoolSettings,
    path: str,
    fields: tuple[tuple[str, str], ...],
    *,
    most_bytes: int,
    body_s: float,
) -> Answer | Http2Answer:
    """`fields`: beside the host. Raises what ask() of http_client.py and of http2_client.py raise."""
    host = host_of(address, settings.health)
    if settings.protocol != "http/1.1":
        asked = Http2Ask("GET", path, host, fields, scheme=scheme_of(address))
        return await http2_client.ask(stream, asked, most_bytes=most_bytes, body_s=body_s)
    request = Ask("GET", path, (("Host", host), *fields), greeting=own_header(settings.send_proxy))
    bare_lf = settings.accept_bare_lf
    return await ask(stream, request, most_bytes=most_bytes, body_s=body_s, accept_bare_lf=bare_lf)


def host_of(address: Address, health: HealthSettings) -> str:
    return health.host or address.authority


def scheme_of(address: Address) -> str:
    return "https" if address.secure else "http"


def with_headers(health: HealthSettings, fields: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The fields, and those that the operator adds: of two with the same name the operator's."""
    ours = {name.lower(): name for name in fields}
    for name, value in health.headers:
        fields.pop(ours.get(name.lower(), ""), None)
        fields[name] = value
    return tuple(fields.items())
