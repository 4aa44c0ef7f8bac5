"""How a rollout proceeds: how many backends to start next, and which ones may leave once those serve.

Plain functions over frozen values. They keep invariant 3 (DESIGN.md 7): never fewer serving backends than the pool's
size, never more that run and are not draining than size + surge. Know nothing of how a backend is started or drained.
"""

from collections.abc import Iterable, Sequence

from lbproxy.model import Backend, BackendId, State
from lbproxy.settings import ReloadSettings

# Who is missed least leaves first.
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
    """How many more than `size` may run: at least one, or nothing could be proved before something leaves."""
    if settings.max_surge_is_percent:
        return max(1, -(-size * settings.max_surge // 100))
    return max(1, settings.max_surge)


def running(backends: Iterable[Backend]) -> int:
    """How many run, or may run again any moment (back-off), and do not drain."""
    return sum(backend.state not in _NOT_RUNNING for backend in backends)


def batch_size(to_make: int, now_running: int, limit: int) -> int:
    """How many to start next, of `to_make`, while `now_running` run and at most `limit` may.

    A pool whose old backends have all failed is filled at once: what does not run takes no room. At least one, if
    there is one to make: a pool that is over its limit already (it shrinks, or an earlier reload failed) must move on.
    """
    return min(to_make, max(1, limit - now_running))


def slots_in_order(slots: Iterable[int], old: Iterable[Backend]) -> list[int]:
    """The slots to make, those first whose old backend is worth least.

    A slot's new backend then comes when its old one goes, so that `balance = "hash"` moves few clients.
    """
    worth = {backend.id.slot: _WORTH[backend.state] for backend in old}
    return sorted(slots, key=lambda slot: (worth.get(slot, max(_WORTH.values())), slot))


def leaving(old: Sequence[Backend], still_to_come: int) -> list[BackendId]:
    """Which of `old` may leave while `still_to_come` of those that replace them do not serve yet."""
    ranked = sorted(old, key=lambda backend: (_WORTH[backend.state], backend.id.slot))
    return [backend.id for backend in ranked[: max(0, len(ranked) - still_to_come)]]
