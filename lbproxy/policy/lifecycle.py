"""The life cycle of a backend: one table of its states and events.

Does not know processes or probes. Time is an argument.
"""

from dataclasses import replace
from enum import Enum

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.model import Backend, State


class LifecycleEvent(Enum):
    PASSED = "a probe passes"  # the process is alive, and the listening socket is its own
    RECOVERED = "`rise` probes pass"
    FELL = "`fall` probes fail"
    DIED = "it dies, or is not ready in time"
    GAVE_UP = "it dies once too often"
    RETRIED = "its port was taken, or it is on trial: started anew at once"
    RECYCLED = "it ends by itself with exit code 0, after it was ready"
    RESTARTED = "the back-off is over"
    DRAINED = "it is told to drain"
    TAKEN_BACK = "it is taken back"
    TAKEN_BACK_UNHEALTHY = "it is taken back, and its probes fail"
    STOPPED = "it is told to stop"


TRANSITIONS: dict[tuple[State, LifecycleEvent], State] = {
    (State.STARTING, LifecycleEvent.PASSED): State.READY,
    (State.STARTING, LifecycleEvent.FELL): State.UNHEALTHY,  # a fixed address that does not answer
    (State.STARTING, LifecycleEvent.RETRIED): State.STARTING,
    (State.STARTING, LifecycleEvent.DIED): State.BACKOFF,
    (State.STARTING, LifecycleEvent.GAVE_UP): State.FAILED,
    (State.STARTING, LifecycleEvent.STOPPED): State.STOPPING,
    (State.READY, LifecycleEvent.FELL): State.UNHEALTHY,
    (State.READY, LifecycleEvent.RETRIED): State.STARTING,
    (State.READY, LifecycleEvent.RECYCLED): State.STARTING,
    (State.READY, LifecycleEvent.DIED): State.BACKOFF,
    (State.READY, LifecycleEvent.GAVE_UP): State.FAILED,
    (State.READY, LifecycleEvent.DRAINED): State.DRAINING,
    (State.READY, LifecycleEvent.STOPPED): State.STOPPING,
    (State.UNHEALTHY, LifecycleEvent.RECOVERED): State.READY,
    (State.UNHEALTHY, LifecycleEvent.RETRIED): State.STARTING,
    (State.UNHEALTHY, LifecycleEvent.RECYCLED): State.STARTING,
    (State.UNHEALTHY, LifecycleEvent.DIED): State.BACKOFF,
    (State.UNHEALTHY, LifecycleEvent.GAVE_UP): State.FAILED,
    (State.UNHEALTHY, LifecycleEvent.DRAINED): State.DRAINING,
    (State.UNHEALTHY, LifecycleEvent.STOPPED): State.STOPPING,
    (State.DRAINING, LifecycleEvent.TAKEN_BACK): State.READY,
    (State.DRAINING, LifecycleEvent.TAKEN_BACK_UNHEALTHY): State.UNHEALTHY,
    (State.DRAINING, LifecycleEvent.DIED): State.STOPPING,  # it was to be stopped anyway
    (State.DRAINING, LifecycleEvent.STOPPED): State.STOPPING,
    (State.BACKOFF, LifecycleEvent.RESTARTED): State.STARTING,
    (State.BACKOFF, LifecycleEvent.STOPPED): State.STOPPING,
    (State.FAILED, LifecycleEvent.STOPPED): State.STOPPING,
}


class IllegalTransition(LbproxyError):
    """The event is not in the table for this state. Nothing was changed."""


def after(backend: Backend, event: LifecycleEvent, *, now: float) -> Backend:
    """The backend after `event`. A dead backend has no pid and no address. A restart is counted."""
    try:
        state = TRANSITIONS[backend.state, event]
    except KeyError:
        raise IllegalTransition(f"{backend.id}: {event.name} while {backend.state.name}") from None
    if event in (LifecycleEvent.DIED, LifecycleEvent.GAVE_UP, LifecycleEvent.RETRIED, LifecycleEvent.RECYCLED):
        backend = replace(backend, address=None, pid=None)
    return replace(backend, state=state, since=now, restarts=backend.restarts + (event is LifecycleEvent.RESTARTED))


def spawned(backend: Backend, address: Address, pid: int | None) -> Backend:
    """The backend in the same state, now with an address and, unless it is a fixed address, a process."""
    return replace(backend, address=address, pid=pid)


def diagram() -> str:
    """The table as text, a block for each state."""
    blocks = []
    for state in State:
        rows = [(event.value, target) for (source, event), target in TRANSITIONS.items() if source is state]
        lines = [f"  {what:<{_WIDTH}}  -> {target}" for what, target in rows]
        blocks.append("\n".join([str(state), *(lines or ["  (until it is gone)"])]))
    return "\n".join(blocks) + "\n"


_WIDTH = max(len(event.value) for event in LifecycleEvent)
