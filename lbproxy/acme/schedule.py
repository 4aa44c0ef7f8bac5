"""When a certificate is ordered: at two thirds of its lifetime, or after a failure.

Plain functions over numbers: seconds of the epoch, and draws in [0, 1).
"""

from lbproxy.policy.backoff import delay_s

REFUSED_FIRST_S = 240.0  # half of it at least: Let's Encrypt takes 5 failed validations an hour
UNREACHABLE_FIRST_S = 5.0
LONGEST_S = 12 * 3600.0
_USED = 2 / 3
_SPREAD = 1 / 30  # of the lifetime: certificates that were ordered together are not renewed together
_LEAST = 1 / 30  # of the lifetime: a clock that is wrong must not order again and again


def renewal_at(not_before: float, not_after: float, draw: float) -> float:
    lifetime_s = not_after - not_before
    return not_before + (_USED - _SPREAD * draw) * lifetime_s


def after_success(not_before: float, not_after: float, now: float, draw: float) -> float:
    return max(renewal_at(not_before, not_after, draw), now + _LEAST * (not_after - not_before))


def after_failure(
    failures: int, now: float, draw: float, *, is_refused: bool, retry_after_s: float | None = None
) -> float:
    """`is_refused`: the authority has answered, and keeps count. `failures`: in a row, this one included."""
    first_s = REFUSED_FIRST_S if is_refused else UNREACHABLE_FIRST_S
    return now + max(delay_s(failures, first_s, LONGEST_S, draw), retry_after_s or 0.0)
