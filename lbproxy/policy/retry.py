"""The decision on a request that a backend left without an answer: the one place where a retry is decided.

Knows the facts of one failed attempt (HTTP.md "Responses"; invariant 6 of DESIGN.md 7). A request may be sent again
only if a second arrival cannot do harm. Knows no socket and no pool: the caller finds the other backend.
"""

from enum import Enum

# RFC 9110 9.2.2: the safe methods, PUT and DELETE. Anything unknown may do anything.
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


class Retry(Enum):
    FRESH = "again at once, on a fresh connection to any backend"
    ELSEWHERE = "again at once, on another backend if there is one"
    CLOSE = "the client's connection is closed without an answer"
    FAIL = "502"


# Why a request is sent again, as operators count it.
REASONS = {Retry.FRESH: "stale_connection", Retry.ELSEWHERE: "no_answer"}
NOT_CONNECTED = "connect"  # nothing was sent: no decision is needed


def may_replay(method: bytes) -> bool:
    """May a request with this method reach a backend twice? Methods are case-sensitive (RFC 9110 9.1)."""
    return method in IDEMPOTENT


def after_no_answer(*, reused: bool, replayable: bool, attempts_left: int) -> Retry:
    """The next step after a backend connection ended before a valid status line.

    `reused`: the connection had served before, so the backend may have closed it in the same moment; that says nothing
    against the backend, and does not count as an attempt. `replayable`: the method is idempotent and the whole body is
    still in hand. A request that is not replayable goes out on a reused connection only if the client has had an answer
    on its own connection before: it knows what the end of a kept connection means (RFC 9112 9.3.1).
    """
    if reused:
        return Retry.FRESH if replayable else Retry.CLOSE
    return Retry.ELSEWHERE if replayable and attempts_left > 0 else Retry.FAIL
