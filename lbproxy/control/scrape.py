"""One scrape: the values of all metrics of CONTRACT.md 5 as they are now, read from all parts of control.

Reads plain numbers that are there already, and no file: 50 pools with 500 backends take less than 100 ms. What can
happen is there from the first scrape, at 0, so that Prometheus' increase() sees the first time. Changes nothing.
"""

import platform
from collections import Counter as Numbers
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import TypeAlias, TypeVar

from lbproxy import __version__
from lbproxy.control.context import ControlContext
from lbproxy.control.event_counts import RESTART_REASONS
from lbproxy.control.reload import EXIT_CODES
from lbproxy.control.tallies import SERVED
from lbproxy.control.worker_process import WorkerStatus
from lbproxy.link.grid import Counter, Grid
from lbproxy.link.handed_over import HANDED_OVER
from lbproxy.model import LeaseKind, State
from lbproxy.policy.retry import NOT_CONNECTED, REASONS
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S, RELOAD_BOUNDS_S, START_BOUNDS_S, Histogram
from lbproxy.telemetry.metrics import Samples, Value

Labels: TypeAlias = tuple[str, ...]
Measure = TypeVar("Measure", float, Histogram)

# What is there at 0: what is in every graph, or worth an alert when it happens for the first time.
METHODS = ("GET", "POST")
CODES = ("200", "499", "500", "502", "503", "504")
RETRIES = (NOT_CONNECTED, *REASONS.values())
ERRORS = (
    "connection_limit_reached",
    "connection_read_timeout",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_write_timeout",
    "cut",
    "destination_unavailable",
    "http_protocol_error",
    "http_response_incomplete",
    "http_response_timeout",
    "http_upgrade_failed",
    "proxy_internal_error",
)
CLOSES = (("1000", "client"), ("1000", "backend"), ("1001", "client"), ("1001", "proxy"), ("1006", "client"))
# Result and version of a handshake; a version only where there is one.
HANDSHAKES = (("ok", "TLSv1.3"), ("ok", "TLSv1.2"), ("resumed", "TLSv1.3"), ("failed", ""))
RESETS = ("cancel", "ours_internal_error", "ours_protocol_error", "ours_refused_stream")
STATES = (*map(str, State), "drained")
PROBES = {True: "passed", False: "failed"}


def samples(context: ControlContext, grid: Grid, workers: Iterable[WorkerStatus]) -> Samples:
    workers = list(workers)
    return {
        **_of_tallies(context, workers),
        **_of_events(context),
        **_of_pools(context, grid),
        **_of_processes(context, grid, workers),
    }


def _of_tallies(context: ControlContext, workers: list[WorkerStatus]) -> Samples:
    """What workers count and send."""
    pools, tallies = context.fleet.pools, context.measured.tallies
    incidents = tallies.incidents
    queued: Numbers[str] = Numbers()
    streams: Numbers[str] = Numbers()
    for worker in workers:
        queued.update(worker.stats.queued)
        streams.update(worker.stats.http2_streams)
    http2 = [view.settings.name for view in context.listeners if {"h2", "h2c"} & {*view.settings.protocols}]
    secured = [view.settings.name for view in context.listeners if view.settings.tls is not None]
    handshakes = [(name, result, version) for name in secured for result, version in HANDSHAKES]
    closes = [(pool, code, by) for pool in pools for code, by in CLOSES]
    return {
        "http_requests_total": _with_zeros(tallies.requests, product(pools, METHODS, CODES)),
        "http_request_duration_seconds": _histograms(_keyed(tallies.durations), product(pools), DURATION_BOUNDS_S),
        "http_request_bytes_total": _with_zeros(_keyed(tallies.request_bytes), product(pools)),
        "http_response_bytes_total": _with_zeros(_keyed(tallies.response_bytes), product(pools)),
        "queue_wait_seconds": _histograms(_keyed(tallies.waits), product(pools), DURATION_BOUNDS_S),
        "queue_requests": [((pool,), queued[pool]) for pool in pools],
        "retries_total": _with_zeros(incidents.get("retry", {}), product(pools, RETRIES)),
        "backend_errors_total": _with_zeros(incidents.get("backend_error", {}), product(pools, ERRORS)),
        "websocket_closes_total": _with_zeros(incidents.get("websocket_close", {}), closes),
        "drain_cut_total": _with_zeros(incidents.get("drain_cut", {}), product(pools, map(str, LeaseKind))),
        "http2_streams": [((name,), streams[name]) for name in http2],
        "http2_resets_total": _with_zeros(incidents.get("http2_reset", {}), product(http2, RESETS)),
        "tls_handshakes_total": _with_zeros(incidents.get("tls_handshake", {}), handshakes),
        "express_total": _with_zeros(_keyed(tallies.express), product((SERVED, *HANDED_OVER))),
    }


def _of_events(context: ControlContext) -> Samples:
    pools, events, probes = context.fleet.pools, context.measured.events, context.measured.probes
    reloads = dict(_histograms(events.reloads, product(pools, EXIT_CODES), RELOAD_BOUNDS_S))
    asked: dict[Labels, Value] = {(pool, PROBES[passed]): number for (pool, passed), number in probes.items()}
    return {
        "reloads_total": [(key, durations.count) for key, durations in reloads.items()],
        "reload_duration_seconds": reloads.items(),
        "reload_in_progress": [((), int(events.is_reloading))],
        "config_last_reload_successful": [((), int(events.was_last_reload_ok))],
        "backend_restarts_total": _with_zeros(events.restarts, product(pools, RESTART_REASONS)),
        "backend_ejections_total": _with_zeros(_keyed(events.ejections), product(pools)),
        "backend_start_seconds": _histograms(_keyed(events.starts), product(pools), START_BOUNDS_S),
        "probes_total": _with_zeros(asked, product(pools, PROBES.values())),
        "build_info": [((__version__, platform.python_version()), 1)],
    }


def _of_pools(context: ControlContext, grid: Grid) -> Samples:
    """What the pools and the grid say of backends."""
    usage, growing = context.measured.usage, context.measured.growing
    made: dict[str, list[tuple[Labels, Value]]] = {
        key: []
        for key in (
            "http_requests_in_flight",
            "websockets",
            "generation",
            "backends",
            "backend_up",
            "backend_requests_total",
            "backend_requests_in_flight",
            "backend_cpu_seconds_total",
            "backend_resident_memory_bytes",
        )
    }
    for name, pool in context.fleet.pools.items():
        in_hand: dict[str, int] = {}  # by slot: two generations may have the same one
        exchanges = websockets = 0
        states = Numbers(map(pool.state_of, pool.members))
        for member in pool.members:
            leases = grid.sum(member.cell, Counter.LEASES)
            open_ones = grid.sum(member.cell, Counter.WEBSOCKET)
            exchanges += max(0, leases - open_ones - grid.sum(member.cell, Counter.TCP))
            websockets += open_ones
            slot = member.backend.id.name
            in_hand[slot] = in_hand.get(slot, 0) + leases
        serving = {member.backend.id.name for member in pool.serving() if pool.ejection_of(member) is None}
        requests = pool.requests_by_slot()
        made["http_requests_in_flight"].append(((name,), exchanges))
        made["websockets"].append(((name,), websockets))
        made["generation"].append(((name,), pool.generation.number))
        made["backends"] += [((name, state), states[state]) for state in STATES]
        for slot, leases in in_hand.items():
            labels = (name, slot)
            total = growing.total(labels, id(pool), requests[slot])
            made["backend_up"].append((labels, int(slot in serving)))
            made["backend_requests_total"].append((labels, total))
            made["backend_requests_in_flight"].append((labels, leases))
            made["backend_cpu_seconds_total"].append((labels, usage.cpu_s(labels)))
            made["backend_resident_memory_bytes"].append((labels, usage.resident_bytes(labels)))
    return made


def _of_processes(context: ControlContext, grid: Grid, workers: list[WorkerStatus]) -> Samples:
    """What belongs to listeners and workers."""
    usage, growing = context.measured.usage, context.measured.growing
    listeners = {view.settings.name: view for view in context.listeners}
    # A worker that has just died has a successor soon.
    ids = list(map(str, sorted({*range(1, context.worker_count + 1), *(worker.id for worker in workers)})))
    return {
        "connections": [((name,), grid.sum(view.cell, Counter.CONNECTIONS)) for name, view in listeners.items()],
        "connections_total": [
            ((name,), growing.total(name, view.key, grid.sum(view.cell, Counter.ACCEPTED)))
            for name, view in listeners.items()
        ],
        "tls_certificate_not_after_timestamp_seconds": context.certificates.not_after(),
        "worker_cpu_seconds_total": [((worker,), usage.cpu_s(worker)) for worker in ids],
        "worker_resident_memory_bytes": [((worker,), usage.resident_bytes(worker)) for worker in ids],
    }


def owners(context: ControlContext) -> Iterator[tuple[Labels | str, int]]:
    """The processes whose CPU time and memory are looked up: backends by pool and slot, workers by number."""
    for name, pool in context.fleet.pools.items():
        for member in pool.members:
            if member.backend.pid is not None:
                yield (name, member.backend.id.name), member.backend.pid
    for worker in context.workers.known():
        yield str(worker.id), worker.pid


def _keyed(values: Mapping[str, Measure]) -> dict[Labels, Measure]:
    return {(label,): value for label, value in values.items()}


def _with_zeros(values: Mapping[Labels, Value], known: Iterable[Labels]) -> Iterable[tuple[Labels, Value]]:
    return {**dict.fromkeys(known, 0), **values}.items()


def _histograms(
    values: Mapping[Labels, Histogram], known: Iterable[Labels], bounds: tuple[float, ...]
) -> Iterable[tuple[Labels, Histogram]]:
    return {**dict.fromkeys(known, Histogram(bounds)), **values}.items()
