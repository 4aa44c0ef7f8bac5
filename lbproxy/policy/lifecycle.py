"""The life of a backend: every state it can be in, everything that can happen to it, and nothing else.

Knows neither processes nor probes. Time is an argument.
"""

from dataclasses import replace
from enum import Enum

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.model import Backend, State


class Event(Enum):
    PASSED = "a probe passes"  # of ours: the child lives and the listening socket is its own
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


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.STARTING, Event.PASSED): State.READY,
    (State.STARTING, Event.FELL): State.UNHEALTHY,  # a fixed address that does not answer
    (State.STARTING, Event.RETRIED): State.STARTING,
    (State.STARTING, Event.DIED): State.BACKOFF,
    (State.STARTING, Event.GAVE_UP): State.FAILED,
    (State.STARTING, Event.STOPPED): State.STOPPING,
    (State.READY, Event.FELL): State.UNHEALTHY,
    (State.READY, Event.RETRIED): State.STARTING,
    (State.READY, Event.RECYCLED): State.STARTING,
    (State.READY, Event.DIED): State.BACKOFF,
    (State.READY, Event.GAVE_UP): State.FAILED,
    (State.READY, Event.DRAINED): State.DRAINING,
    (State.READY, Event.STOPPED): State.STOPPING,
    (State.UNHEALTHY, Event.RECOVERED): State.READY,
    (State.UNHEALTHY, Event.RETRIED): State.STARTING,
    (State.UNHEALTHY, Event.RECYCLED): State.STARTING,
    (State.UNHEALTHY, Event.DIED): State.BACKOFF,
    (State.UNHEALTHY, Event.GAVE_UP): State.FAILED,
    (State.UNHEALTHY, Event.DRAINED): State.DRAINING,
    (State.UNHEALTHY, Event.STOPPED): State.STOPPING,
    (State.DRAINING, Event.TAKEN_BACK): State.READY,
    (State.DRAINING, Event.TAKEN_BACK_UNHEALTHY): State.UNHEALTHY,
    (State.DRAINING, Event.DIED): State.STOPPING,  # nobody wants it any more
    (State.DRAINING, Event.STOPPED): State.STOPPING,
    (State.BACKOFF, Event.RESTARTED): State.STARTING,
    (State.BACKOFF, Event.STOPPED): State.STOPPING,
    (State.FAILED, Event.STOPPED): State.STOPPING,
}


class IllegalTransition(LbproxyError):
    """The event cannot happen in this state. Nothing was changed."""


def after(backend: Backend, event: Event, *, now: float) -> Backend:
    """The backend after `event`. A dead one has neither pid nor address; a restart is counted."""
    try:
        state = TRANSITIONS[backend.state, event]
    except KeyError:
        raise IllegalTransition(f"{backend.id}: {event.name} while {backend.state.name}") from None
    if event in (Event.DIED, Event.GAVE_UP, Event.RETRIED, Event.RECYCLED):
        backend = replace(backend, address=None, pid=None)
    return replace(backend, state=state, since=now, restarts=backend.restarts + (event is Event.RESTARTED))


def spawned(backend: Backend, address: Address, pid: int | None) -> Backend:
    """The same state, now with an address and, if it is ours, a process."""
    return replace(backend, address=address, pid=pid)


def diagram() -> str:
    """The table as text, a block for each state."""
    blocks = []
    for state in State:
        rows = [(event.value, target) for (source, event), target in TRANSITIONS.items() if source is state]
        lines = [f"  {what:<{_WIDTH}}  -> {target}" for what, target in rows]
        blocks.append("\n".join([str(state), *(lines or ["  (until it is gone)"])]))
    return "\n".join(blocks) + "\n"


_WIDTH = max(len(event.value) for event in Event)
