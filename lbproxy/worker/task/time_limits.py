"""How long an attempt waits for its backend: the pool's limits, or those of a gRPC call.

A call may be silent for hours. Its head is waited for as long as the pool says only if the call has a deadline. A dead
peer is found by PING. Knows heads and clock readings.
"""

from dataclasses import dataclass

from lbproxy.errors import ProxyError
from lbproxy.settings import PoolTimeouts
from lbproxy.wire.grpc import call_timeout_s
from lbproxy.wire.head import RequestHead

NEVER = float("inf")
SLACK_S = 0.1  # behind the deadline: a client that keeps it itself has reset its stream by then


class DeadlinePassed(ProxyError):
    """The deadline that the client gave its call. No backend is to blame."""

    def __init__(self) -> None:
        super().__init__(504, "http_response_timeout", "the deadline of the call has passed")


@dataclass(frozen=True, slots=True)
class TimeLimits:
    response_s: float
    idle_s: float
    ends_at: float = NEVER  # clock reading: the end of all of it


def time_limits(timeouts: PoolTimeouts) -> TimeLimits:
    return TimeLimits(timeouts.response_s, timeouts.idle_s)


def limits_of_call(head: RequestHead, timeouts: PoolTimeouts, started: float) -> TimeLimits:
    timeout_s = call_timeout_s(head)
    if timeout_s is None:
        return TimeLimits(NEVER, NEVER)
    return TimeLimits(timeouts.response_s, NEVER, started + timeout_s + SLACK_S)
