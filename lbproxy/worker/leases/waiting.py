"""Those who wait for a lease, and what they are told who have waited in vain."""

import trio

from lbproxy.errors import ProxyError
from lbproxy.model import LeaseKind, PoolView
from lbproxy.worker.leases.affinity import Key
from lbproxy.worker.leases.drain import Lease

HOPELESS = "every backend of the pool has failed, and none is started again"


def why_nobody(pool: PoolView | None) -> ProxyError:
    """Of a request that has waited in vain."""
    if pool is None:
        return ProxyError(503, "destination_unavailable", "the pool is gone")
    if pool.maintenance is not None:
        return ProxyError(503, "destination_unavailable", "maintenance", pool.maintenance)
    if pool.is_hopeless:
        return ProxyError(503, "destination_unavailable", HOPELESS)
    if pool.resting:
        return ProxyError(503, "destination_unavailable", "the pool is paused")
    if pool.limits.connections and pool.backends:
        return ProxyError(503, "connection_limit_reached", "every backend has as many connections as it may")
    return ProxyError(503, "destination_unavailable", "no backend is ready")


class Waiter:
    """One who waits for a lease. It is given to him: what he was called for nobody else can have taken."""

    __slots__ = ("called", "key", "kind", "lease")

    def __init__(self, kind: LeaseKind, key: Key) -> None:
        self.kind = kind
        self.key = key
        self.lease: Lease | None = None
        self.called = trio.Event()
