"""The steps of a rollout: how many backends start next, and which backends may leave when these serve.

Plain functions over frozen values. They keep invariant 3 (DESIGN.md 7): never fewer serving backends than the pool's
size, and never more than size + surge that run and do not drain. Does not know how a backend is started or drained.
"""

from collections.abc import Iterable, Sequence

from lbproxy.model import Backend, BackendId, State
from lbproxy.settings import ReloadSettings

# The backend with the lowest worth leaves first.
_WORTH = {
    State.FAILED: 0,
    State.STOPPING: 0,
    State.BACKOFF: 1,
    State.STARTING: 2,
    State.UNHEALTHY: 3,
    State.DRAINING: 4,
    State.READY: 5,
}
_NOT_RUNNING = (State.FAILED, State.DRAINING, State.STOPPING)


def surge(settings: ReloadSettings, size: int) -> int:
    """How many more than `size` may run: at least one, because a new backend is proved before an old one leaves."""
    if settings.max_surge_is_percent:
        return max(1, -(-size * settings.max_surge // 100))
    return max(1, settings.max_surge)


def running(backends: Iterable[Backend]) -> int:
    """How many run or may run again at any moment (back-off), and do not drain."""
    return sum(backend.state not in _NOT_RUNNING for backend in backends)


def batch_size(to_make: int, now_running: int, limit: int) -> int:
    """How many of `to_make` start next, while `now_running` run and at most `limit` may run.

    A pool whose old backends have all failed is filled at once, because a failed backend does not count as running. At
    least one starts if there is one to make: a pool that is over its limit already (it shrinks, or an earlier reload
    failed) must make progress.
    """
    return min(to_make, max(1, limit - now_running))


def slots_in_order(slots: Iterable[int], old: Iterable[Backend]) -> list[int]:
    """The slots to make, in the order of the worth of their old backends.

    The new backend of a slot then comes when the old one leaves, so that `balance = "hash"` moves few clients.
    """
    worth = {backend.id.slot: _WORTH[backend.state] for backend in old}
    return sorted(slots, key=lambda slot: (worth.get(slot, max(_WORTH.values())), slot))


def leaving(old: Sequence[Backend], still_to_come: int) -> list[BackendId]:
    """The backends of `old` that may leave while `still_to_come` of their successors do not serve yet."""
    ranked = sorted(old, key=lambda backend: (_WORTH[backend.state], backend.id.slot))
    return [backend.id for backend in ranked[: max(0, len(ranked) - still_to_come)]]
