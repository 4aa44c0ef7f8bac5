"""Counts of events: reloads, restarts and starts of backends.

Knows events and nothing else: no event is emitted for the sake of a count. `take` may be called for every event.
"""

from lbproxy.telemetry.events import (
    BackendExited,
    BackendReady,
    BackendRecycled,
    BackendUnhealthy,
    ConfigRejected,
    Event,
    ReloadDone,
    ReloadFinished,
    ReloadStarted,
)
from lbproxy.telemetry.histogram import RELOAD_BOUNDS_S, START_BOUNDS_S, Histogram

RESTART_REASONS = ("crash", "recycled", "max_memory")
RELOADS = ("reload", "rollback")  # the verbs that bring another generation; a scale or a drain is no reload


class EventCounts:
    def __init__(self) -> None:
        self.reloads: dict[tuple[str, ...], Histogram] = {}  # their durations, by pool and result
        self.restarts: dict[tuple[str, ...], int] = {}  # by pool and reason
        self.starts: dict[str, Histogram] = {}  # seconds from spawn to ready, by pool
        self.ejections: dict[str, int] = {}  # by pool
        self.was_last_reload_ok = True
        self._running: set[str] = set()

    @property
    def is_reloading(self) -> bool:
        return bool(self._running)

    def take(self, event: Event) -> None:
        match event:
            case ReloadStarted(reload=reload, verb=verb) if verb in RELOADS:
                self._running.add(reload)
            case ReloadDone(pool=pool, result=result, duration_s=duration_s, verb=verb) if verb in RELOADS:
                self.reloads.setdefault((pool, result), Histogram(RELOAD_BOUNDS_S)).observe(duration_s)
            case ReloadDone(pool=pool, result="ok", verb="recycle"):
                self._count_restart(pool, "max_memory")
            case ReloadFinished(reload=reload, exit_code=exit_code) if reload in self._running:
                self._running.remove(reload)
                self.was_last_reload_ok = exit_code == 0
            case ConfigRejected():
                self.was_last_reload_ok = False
            case BackendReady(pool=pool, after_s=after_s):
                self.starts.setdefault(pool, Histogram(START_BOUNDS_S)).observe(after_s)
            case BackendExited(pool=pool, restart_in_s=restart_in_s) if restart_in_s is not None:
                self._count_restart(pool, "crash")
            case BackendUnhealthy(pool=pool, back_in_s=back_in_s) if back_in_s is not None:
                self.ejections[pool] = self.ejections.get(pool, 0) + 1
            case BackendRecycled(pool=pool):
                self._count_restart(pool, "recycled")

    def _count_restart(self, pool: str, reason: str) -> None:
        self.restarts[pool, reason] = self.restarts.get((pool, reason), 0) + 1
