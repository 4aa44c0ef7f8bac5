"""What may be sent a second time: only what cannot have had an effect (DESIGN.md 7, invariant 6).

Knows the facts of one failed attempt. Whether the body is still in hand, and how many attempts are left, is the
caller's affair.
"""

from lbproxy.errors import Stage

# RFC 9110 9.2.2: the safe methods, PUT and DELETE. Anything unknown may do anything.
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


def may_replay(method: bytes) -> bool:
    """May a request with this method reach a backend twice? Methods are case-sensitive (RFC 9110 9.1)."""
    return method in IDEMPOTENT


def may_retry(stage: Stage, reused: bool, replayable: bool) -> bool:
    """May an attempt that failed at `stage` be made again, elsewhere or on a fresh connection?

    `reused`: it went over a connection that had served before, so that the backend may have closed it in the same
    moment. `replayable`: the method may be replayed and its body is still in hand.
    """
    if stage is Stage.CONNECT:
        return True
    if stage is Stage.SEND:
        return reused and replayable
    # CLAIM: nobody could be had, and waiting for somebody is the queue's affair. Behind SEND the backend has spoken.
    return False
