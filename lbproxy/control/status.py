"""The status document (CONTRACT.md 3) as plain JSON values. Reads all parts of control and changes nothing."""

import os
from typing import Any

import trio

from lbproxy.control.context import ControlContext
from lbproxy.control.measured import Measured
from lbproxy.control.pool import Member, Pool
from lbproxy.control.usage_book import UsageBook
from lbproxy.control.worker_process import WorkerStatus
from lbproxy.link.grid import Counter, Grid
from lbproxy.model import LeaseKind, ListenerView, State
from lbproxy.policy.goodbye import longest_s
from lbproxy.telemetry.text import iso_time


def document(context: ControlContext, grid: Grid, workers: list[WorkerStatus], started: float) -> dict[str, Any]:
    """`started`: Trio's clock when control began."""
    settings = context.settings
    return {
        "version": 1,
        "name": settings.proxy.name,
        "pid": os.getpid(),
        "uptime_s": round(trio.current_time() - started, 3),
        "config": {"path": settings.path, "loaded_at": iso_time(context.loaded_at)},
        "degraded": any(pool.is_degraded for pool in context.fleet.pools.values()) or not _all_serve(context, workers),
        "workers": [_worker(worker) for worker in workers],
        "workers_wanted": context.worker_count,
        "listeners": [_listener(context, view, grid) for view in context.listeners],
        "routes": [{"host": route.host, "path": route.path, "pool": route.pool} for route in settings.routes],
        "pools": {name: _pool(pool, grid, context.measured) for name, pool in context.fleet.pools.items()},
    }


def _listener(context: ControlContext, view: ListenerView, grid: Grid) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": view.settings.name,
        "address": str(view.settings.address),
        "mode": view.settings.mode,
        "pool": view.settings.pool,
        "connections": grid.sum(view.cell, Counter.CONNECTIONS),
    }
    if view.settings.tls is not None:
        document["certificates"] = context.certificates.facts(view.settings.tls)
        if (order := context.orders.facts(view.settings.tls)) is not None:
            document["acme"] = order
    return document


def _all_serve(context: ControlContext, workers: list[WorkerStatus]) -> bool:
    return sum(worker.state == "serving" for worker in workers) >= context.worker_count


def is_ready(pool: Pool) -> bool:
    """Whether the pool has a ready backend. One that only serves because no other is left does not count."""
    return pool.ready > 0


def _worker(worker: WorkerStatus) -> dict[str, Any]:
    stats = worker.stats
    return {
        "id": worker.id,
        "pid": worker.pid,
        "state": worker.state,
        "is_old": worker.is_old,  # of the program before an upgrade: it finishes what it has
        "connections": stats.connections,
        "express": {
            "served": stats.served,
            "phases": stats.phases,
            "handed_over": stats.handed_over,
            "longest_turn_s": round(stats.longest_turn_s, 6),
            "longest_batch_s": round(stats.longest_batch_s, 6),
        },
    }


def _pool(pool: Pool, grid: Grid, measured: Measured) -> dict[str, Any]:
    pace = measured.tallies.pace(pool.name)
    members = sorted(pool.members, key=lambda member: (member.spec.slot, member.spec.generation.number))
    return {
        "generation": pool.generation.number,
        "size": pool.size,
        "ready": pool.ready,
        "reloading": pool.reloading,
        "drained": pool.held,
        "paused": _paused(pool),
        "reload": _running(pool),
        "differs_from_file": list(pool.differs),
        "sticky": pool.settings.sticky.cookie if pool.settings.sticky is not None else None,
        "requests_total": pool.total(Counter.REQUESTS),
        "requests_per_s": round(pace.requests_per_s, 3),
        "p50_s": _rounded(pace.p50_s),
        "p99_s": _rounded(pace.p99_s),
        "backends": [_backend(pool, member, grid, measured.usage) for member in members],
    }


def _paused(pool: Pool) -> dict[str, Any] | None:
    pause = pool.pause
    if pause is None:
        return None
    return {"maintenance": True} if pause.page is not None else {"maintenance": False, "max_wait_s": pause.max_wait_s}


def _running(pool: Pool) -> dict[str, Any] | None:
    running = pool.running_reload
    if running is None:
        return None
    document = {"id": running.id, "verb": running.verb, "step": running.step, "generation": running.generation}
    if running.why is not None:
        document["why"] = running.why
    return document


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _backend(pool: Pool, member: Member, grid: Grid, usage: UsageBook) -> dict[str, Any]:
    backend = member.backend
    leases = pool.leases(member)
    started_at = member.started_at if backend.pid is not None else None
    document: dict[str, Any] = {
        "id": backend.id.name,
        "backend": str(backend.id),  # as every event names it
        "generation": backend.id.generation,
        "state": pool.state_of(member),
        "pid": backend.pid,
        "address": str(backend.address) if backend.address is not None else None,
        "uptime_s": round(trio.current_time() - started_at, 3) if started_at is not None else None,
        "restarts": backend.restarts,
        "recycled": member.runner.recycled,
        "in_flight": sum(leases.values()),
        "leases": leases,
        "requests_total": grid.sum(member.cell, Counter.REQUESTS),
        "directory": member.spec.generation.directory if member.spec.generation.settings.command is not None else None,
        "cpu": _rounded(usage.cpu_share(backend.pid)),  # of one CPU
        "resident_memory_bytes": usage.resident_bytes_of(backend.pid),
    }
    if backend.address is not None and backend.address.name is not None:
        document["target"] = backend.address.written  # the address is one of those that were found for the name
    if (why := pool.why(member, trio.current_time())) is not None:
        document["why"] = why
    if backend.state is State.DRAINING:
        kinds = [LeaseKind(kind) for kind, number in leases.items() if number]
        left_s = longest_s(pool.settings.drain, kinds) - (trio.current_time() - backend.since)
        document["drain_left_s"] = round(max(left_s, 0.0), 3)  # at most; less when its leases end
    return document
