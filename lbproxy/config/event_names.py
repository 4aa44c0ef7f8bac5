"""The names of events (CONTRACT.md 3), for the patterns of [events]."""

from fnmatch import fnmatchcase

from lbproxy.config.problems import nearest, shown

# fmt: off
EVENT_NAMES = (
    "serve.started", "serve.stopping", "serve.stopped", "config.rejected", "notice",
    "backend.starting", "backend.ready", "backend.proved", "backend.not_ready", "backend.unhealthy", "backend.healthy",
    "backend.exited", "backend.recycled", "backend.failed", "backend.draining", "backend.drained",
    "backend.taken_back", "backend.stopped", "backend.output",
    "worker.started", "worker.exited", "worker.hung", "accept.paused", "accept.resumed",
    "reload.started", "reload.rolling_back", "reload.paused", "reload.done", "reload.finished",
    "exchange.failed", "tls.failed", "log.dropped", "pool.paused", "pool.unpaused", "pool.resolved",
    "upgrade.started", "upgrade.proved", "upgrade.done", "certificate.loaded", "certificate.rejected",
    "certificate.expiring", "cluster.*",
)
# fmt: on


def event_pattern(value: object) -> str:
    """A name, or a pattern such as "reload.*". Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected the name of an event, or a pattern such as 'reload.*', got {shown(value)}")
    if not any(fnmatchcase(name, value) or fnmatchcase(value, name) for name in EVENT_NAMES):
        raise ValueError(f"no event is called {shown(value)}{nearest(value, EVENT_NAMES)}")
    return value
