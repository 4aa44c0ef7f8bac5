"""Clients of a sticky pool that wait for their slot: it is in its first start, as when lbproxy is started again.

Without this wait the backend that is ready first would get every client, and each client a new cookie. Bounded by time
and by number; a request that has waited in vain goes to any backend.
"""

from typing import Protocol

import trio

from lbproxy.model import PoolView
from lbproxy.worker.leases.affinity import StickyKey

SLOT_S = 2.0  # while another backend is ready; as long as the queue allows while none is


class RouterLike(Protocol):
    drains_changed: trio.Event  # another one with every table

    def pool(self, name: str) -> PoolView | None: ...


def is_coming(pool: PoolView, key: StickyKey) -> bool:
    """Whether the client's slot is in its first start. It has been in no table, so it has no backend."""
    return bool(pool.coming) and key.may_wait and key.token in [token.encode() for token in pool.coming]


class SlotWaits:
    def __init__(self, router: RouterLike) -> None:
        self._router = router
        self._waiting = 0

    async def wait(self, pool_name: str, key: StickyKey) -> StickyKey:
        """Return the key of a request that waits no more."""
        began, elsewhere_at = trio.current_time(), float("inf")
        self._waiting += 1
        try:
            while (pool := self._router.pool(pool_name)) is not None and is_coming(pool, key):
                now = trio.current_time()
                if pool.backends:
                    elsewhere_at = min(elsewhere_at, now + SLOT_S)
                until = min(began + pool.limits.queue_timeout_s, elsewhere_at)
                if self._waiting > pool.limits.queue_size or now >= until or pool.maintenance is not None:
                    break
                with trio.move_on_at(until):
                    await self._router.drains_changed.wait()
        finally:
            self._waiting -= 1
        return key._replace(may_wait=False)
