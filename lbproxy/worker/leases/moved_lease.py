"""A lease as a value, for another worker, and a lease of such a value. Knows no connection.

A backend that drains is absent from the table, so its drain goes with the lease: a worker that never had the backend
ends the drain in the time that is left of it.
"""

import trio

from lbproxy.link.moved import MovedLease
from lbproxy.model import BackendView, LeaseKind
from lbproxy.worker.leases.drain import Lease, Leases
from lbproxy.worker.leases.router import Router


def value_of(router: Router, lease: Lease) -> MovedLease:
    now = trio.current_time()
    leases = lease.leases
    if _in_table(router, lease.backend) is not None:
        return MovedLease(lease.backend, now - lease.started)
    planned = leases.planned(lease)
    goodbye_in_s = None if planned is None else max(0.0, planned - now)
    return MovedLease(lease.backend, now - lease.started, leases.rest(now), goodbye_in_s)


def lease_of(router: Router, value: MovedLease, kind: LeaseKind) -> Lease:
    """Raises LookupError: this worker cannot know the backend."""
    now = trio.current_time()
    lease = Lease()
    lease.leases = leases = _leases_of(router, value)
    lease.backend = leases.backend
    lease.kind = kind
    lease.started, lease.moved_at = now - value.held_s, now
    router.hold(lease)
    return lease


def tell_at(value: MovedLease) -> float:
    """When a lease of a draining backend is told goodbye: clock reading."""
    return trio.current_time() + (value.goodbye_in_s or 0.0)


def _leases_of(router: Router, value: MovedLease) -> Leases:
    view = _in_table(router, value.backend) or value.backend
    leases = router.leases_of(view)
    if leases is not None:
        return leases
    pool = router.pool(view.id.pool)
    drain = value.drain or (pool.drain if pool is not None else None)
    if drain is None:
        raise LookupError(f"{view.id} is not in the table")
    return router.drain_on(view, drain)


def _in_table(router: Router, view: BackendView) -> BackendView | None:
    """The backend as the table has it."""
    pool = router.pool(view.id.pool)
    return next((one for one in pool.every if one.id == view.id), None) if pool is not None else None
