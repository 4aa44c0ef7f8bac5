"""The goodbye (DESIGN.md 5): when and how each long-lived lease of a draining backend is closed.

Plain functions over clock readings. Does not know frames or leases.
"""

from collections.abc import Iterable
from dataclasses import replace
from enum import IntEnum
from zlib import crc32

from lbproxy.model import LeaseKind
from lbproxy.settings import DrainSettings


class Manner(IntEnum):
    """How a connection may be ended now. The value of a connection never falls."""

    MESSAGE = 0  # by a Close between two messages
    FRAME = 1  # by a Close between two frames: the message in hand is lost
    CUT = 2  # without a Close: the frame in hand never ends


def schedule(count: int, window_s: float, phase: float = 0.0) -> list[float]:
    """The times, in seconds from the start of the drain, to close each of `count` leases: evenly over the window.

    Every interval of window_s / count holds one close, at the fraction `phase` in [0, 1) of it. Workers and backends
    that drain at the same time have different phases, or their first closes would all fall on the same moment.
    """
    step = window_s / count if count else 0.0
    return [(position + phase) * step for position in range(count)]


def manner(now: float, window_ends: float, goodbye_s: float) -> Manner:
    """The manner at `now`: no message is broken before the window is over, and no frame for `goodbye_s` more."""
    if now < window_ends:
        return Manner.MESSAGE
    return Manner.FRAME if now < window_ends + goodbye_s else Manner.CUT


def comes_back_in_ms(client: bytes, left_s: float) -> int:
    """When a client that is told goodbye shall come back: evenly over the rest of the window, by what tells it from
    the others."""
    return int(crc32(client) / 2**32 * max(0.0, left_s) * 1000)


def cut_at(window_ends: float, goodbye_s: float, closed_at: float | None = None) -> float:
    """The time at which the connection is cut in any case. `closed_at`: when our Close was sent to the client."""
    end = window_ends + goodbye_s
    return end if closed_at is None else max(end, closed_at + goodbye_s)


def longest_s(drain: DrainSettings, kinds: Iterable[LeaseKind]) -> float:
    """How long a drain with leases of these kinds may take from its start; 0 without any."""
    graces_s = {
        LeaseKind.REQUEST: drain.request_s,
        LeaseKind.TRANSFER: max(drain.transfer_s, drain.request_s),
        LeaseKind.STREAM: drain.stream_s,
        LeaseKind.WEBSOCKET: drain.websocket_s + drain.goodbye_s,
        LeaseKind.TCP: drain.tcp_s,
    }
    return max((graces_s[kind] for kind in kinds), default=0.0)


def within(drain: DrainSettings, grace_s: float) -> DrainSettings:
    """The same graces, none longer than `grace_s`: the time that a stopping worker has.

    A WebSocket may need its window, the last messages of its backend and the answer of its client, one after the other.
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
