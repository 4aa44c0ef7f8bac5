"""What a test of a worker's stack (support/proxy.py) sets up otherwise than usual."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbproxy.settings import (
    DrainSettings,
    ListenerLimits,
    ListenerTimeouts,
    PoolLimits,
    PoolTimeouts,
    RouteSettings,
    StickySettings,
)


@dataclass(frozen=True, slots=True)
class Setup:
    limits: ListenerLimits = field(default_factory=ListenerLimits)
    timeouts: ListenerTimeouts = field(default_factory=ListenerTimeouts)
    pool_limits: PoolLimits = field(default_factory=PoolLimits)
    pool_timeouts: PoolTimeouts = field(default_factory=lambda: PoolTimeouts(keepalive_s=30.0))
    drain: DrainSettings = field(default_factory=DrainSettings)
    routes: tuple[RouteSettings, ...] = ()
    pool: str | None = "web"  # what the listener names
    trusted: tuple[str, ...] = ()
    balance: str = "least_conn"
    sticky: StickySettings | None = None
    mode: str = "http"
    half_close: str = "abort"
    proxy_protocol: str = "off"
    more: Mapping[str, object] = field(default_factory=dict)  # further settings of the listener
    send_proxy: str = ""  # v1 | v2
    is_http2: bool = False  # the backends speak HTTP/2
    dates: bool = False  # answers without Date get one
    rows: int = 1  # of the grid
    send_bytes: int = 0  # what our kernel holds for a client that does not read; 0 = as the kernel likes
