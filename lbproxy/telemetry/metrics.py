"""Metrics in the formats of Prometheus: the only importer of prometheus_client, which writes and negotiates the format.

Knows the table of families (CONTRACT.md 5) and plain values. Control counts; nothing is counted here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

from lbproxy.telemetry.histogram import Histogram

Value: TypeAlias = float | Histogram
Samples: TypeAlias = Mapping[str, Iterable[tuple[tuple[str, ...], Value]]]  # by family: labels and value


@dataclass(frozen=True, slots=True)
class Family:
    name: str  # without the _total of a counter
    kind: str  # counter | gauge | histogram
    labels: tuple[str, ...]
    help: str


def _families(kind: str, *rows: tuple[str, str, str]) -> tuple[Family, ...]:
    return tuple(Family(f"lbproxy_{name}", kind, tuple(labels.split()), help) for name, labels, help in rows)


FAMILIES = (
    *_families(
        "counter",
        (
            "http_requests",
            "pool method code",
            "HTTP requests that have ended, a WebSocket at its 101. code 499: the client left. No pool: none takes it.",
        ),
        ("http_request_bytes", "pool", "Bytes of request bodies, and from clients of WebSockets that have ended."),
        ("http_response_bytes", "pool", "Bytes of response bodies, and to clients of WebSockets that have ended."),
        ("connections", "listener", "Connections accepted."),
        ("backend_requests", "pool backend", "Requests, WebSockets and TCP sessions that a backend has served."),
        ("backend_restarts", "pool reason", "Backends started again after their process ended by itself."),
        ("backend_ejections", "pool", "Backends left out for a while because clients' work failed on them (passive)."),
        ("backend_cpu_seconds", "pool backend", "CPU time of a backend's processes, looked up every 5 s."),
        ("probes", "pool result", "Questions to backends whether they are ready or healthy."),
        ("retries", "pool reason", "Requests sent again, or to another backend."),
        ("backend_errors", "pool error", "Exchanges that failed, and refused connections, by RFC 9209 error type."),
        ("websocket_closes", "pool code by", "WebSockets that have ended. code 1006: without a Close."),
        ("reloads", "pool result", "Reloads and rollbacks of a pool."),
        ("drain_cut", "pool kind", "Leases ended because the grace of their drain was over."),
        ("tls_handshakes", "listener result version", "TLS handshakes of clients, however they ended."),
        (
            "http2_resets",
            "listener why",
            "HTTP/2 streams reset, by error code; ours_ and the code: by lbproxy.",
        ),
        ("express", "result", "Exchanges that the express lane served, or why it handed them to the task lane."),
        ("worker_cpu_seconds", "worker", "CPU time of a worker, looked up every 5 s."),
    ),
    *_families(
        "gauge",
        ("http_requests_in_flight", "pool", "HTTP requests that a backend is working on."),
        ("connections", "listener", "Open client connections."),
        ("http2_streams", "listener", "Open streams of HTTP/2 connections: requests in hand."),
        ("backends", "pool state", "Backends by state."),
        ("backend_up", "pool backend", "1: the backend gets requests."),
        ("backend_requests_in_flight", "pool backend", "Requests, WebSockets and TCP sessions in hand."),
        ("backend_resident_memory_bytes", "pool backend", "Resident memory of a backend's processes."),
        ("queue_requests", "pool", "Requests that wait for a backend."),
        ("websockets", "pool", "Open WebSockets."),
        ("reload_in_progress", "", "1: a reload or rollback is running."),
        ("generation", "pool", "The newest generation that serves."),
        ("config_last_reload_successful", "", "0: the last reload failed, or its configuration was rejected."),
        ("worker_resident_memory_bytes", "worker", "Resident memory of a worker."),
        (
            "tls_certificate_not_after_timestamp_seconds",
            "listener name",
            "When a certificate expires, by the first of its names.",
        ),
        ("build_info", "version python", "Always 1."),
    ),
    *_families(
        "histogram",
        ("http_request_duration_seconds", "pool", "From the request's head to the end of the answer, or to a 101."),
        ("backend_start_seconds", "pool", "From the start of a backend to its first passed probe."),
        ("queue_wait_seconds", "pool", "Time in the queue, of requests that had to wait for a backend."),
        ("reload_duration_seconds", "pool result", "Duration of a pool's reload."),
    ),
)

_GAUGES = {family.name for family in FAMILIES if family.kind == "gauge"}


def key_of(family: Family) -> str:
    """The family's key in Samples: its name in CONTRACT.md, without the prefix."""
    return family.name.removeprefix("lbproxy_") + ("_total" if family.kind == "counter" else "")


def render(samples: Samples, accept: str) -> tuple[bytes, str]:
    """All families in the format that fits the Accept field best, and its content type."""
    from prometheus_client.exposition import choose_encoder  # the first scrape pays: 40 ms and 4 MB

    encode, content_type = choose_encoder(accept)
    return encode(_Collected(samples, content_type.startswith("application/openmetrics-text"))), content_type


class _Collected:
    """What prometheus_client takes for a registry."""

    def __init__(self, samples: Samples, is_openmetrics: bool) -> None:
        self._samples = samples
        self._is_openmetrics = is_openmetrics

    def collect(self) -> Iterator[Any]:
        from prometheus_client.metrics_core import Metric

        for family in FAMILIES:
            suffix = "_total" if family.kind == "counter" else ""
            if suffix and self._is_openmetrics and family.name in _GAUGES:
                # There the two would be one family with two types.
                metric = Metric(family.name + suffix, family.help, "unknown")
            else:
                metric = Metric(family.name, family.help, family.kind)
            for values, value in self._samples.get(key_of(family), ()):
                labels = dict(zip(family.labels, values, strict=True))
                if isinstance(value, Histogram):
                    _add_histogram(metric, family.name, labels, value)
                else:
                    metric.add_sample(family.name + suffix, labels, value)
            yield metric


def _add_histogram(metric: Any, name: str, labels: dict[str, str], value: Histogram) -> None:
    for bound, number in zip(_bounds(value.bounds), accumulate(value.buckets), strict=True):
        metric.add_sample(f"{name}_bucket", {**labels, "le": bound}, number)
    metric.add_sample(f"{name}_count", labels, value.count)
    metric.add_sample(f"{name}_sum", labels, value.total)


def _bounds(bounds: Sequence[float]) -> list[str]:
    return [*map(str, bounds), "+Inf"]
