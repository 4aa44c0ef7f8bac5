"""When to close which long-lived lease of a draining backend, and how politely (DESIGN.md 5, "The WebSocket goodbye").

Plain functions over clock readings. Knows neither frames nor leases.
"""

from collections.abc import Iterable
from dataclasses import replace
from enum import IntEnum

from lbproxy.model import LeaseKind
from lbproxy.settings import DrainSettings


class Manner(IntEnum):
    """How a connection that was told goodbye may be ended now. It only ever grows."""

    MESSAGE = 0  # a Close, but only between two messages
    FRAME = 1  # a Close between two frames: the message in hand is lost
    CUT = 2  # no Close any more: the frame in hand never ends


def schedule(count: int, window_s: float, phase: float = 0.0) -> list[float]:
    """When, in seconds from the start of the drain, to close each of `count` leases: evenly over the window.

    Every stretch of window_s / count holds one close; `phase` in [0, 1) says where in it. Workers and backends that
    drain at the same time have different phases, else their first closes would all fall on the same moment.
    """
    step = window_s / count if count else 0.0
    return [(position + phase) * step for position in range(count)]


def manner(now: float, window_ends: float, goodbye_s: float) -> Manner:
    """What is allowed at `now`: messages are respected until the window is over, frames for `goodbye_s` more."""
    if now < window_ends:
        return Manner.MESSAGE
    return Manner.FRAME if now < window_ends + goodbye_s else Manner.CUT


def cut_at(window_ends: float, goodbye_s: float, closed_at: float | None = None) -> float:
    """When the connection is cut whatever it does. `closed_at`: when our Close went to the client, who may answer."""
    end = window_ends + goodbye_s
    return end if closed_at is None else max(end, closed_at + goodbye_s)


def longest_s(drain: DrainSettings, kinds: Iterable[LeaseKind]) -> float:
    """How long, from its start, a drain may take that leases of these kinds wait in; 0 without any."""
    graces_s = {
        LeaseKind.REQUEST: drain.request_s,
        LeaseKind.TRANSFER: max(drain.transfer_s, drain.request_s),
        LeaseKind.STREAM: drain.stream_s,
        LeaseKind.WEBSOCKET: drain.websocket_s + drain.goodbye_s,
        LeaseKind.TCP: drain.tcp_s,
    }
    return max((graces_s[kind] for kind in kinds), default=0.0)


def within(drain: DrainSettings, grace_s: float) -> DrainSettings:
    """The same graces where none outlasts `grace_s`: a worker that stops has only so long.

    A WebSocket may need its window, its backend's last words and its client's answer, one after the other.
    """
    goodbye_s = min(drain.goodbye_s, grace_s / 3)
    return replace(
        drain,
        request_s=min(drain.request_s, grace_s),
        transfer_s=min(drain.transfer_s, grace_s),
        stream_s=min(drain.stream_s, grace_s),
        websocket_s=max(0.0, min(drain.websocket_s, grace_s - 2 * goodbye_s)),
        tcp_s=min(drain.tcp_s, grace_s),
        goodbye_s=goodbye_s,
    )
