"""The back-off after a crash, and when to give up. Plain numbers: no clock, no dice."""

from collections.abc import Sequence

HEALTHY_S = 60.0  # after so long a time of being ready the next restart is immediate
SETTLED_S = 10.0  # after so long a time of being ready the back-off begins anew


def crashes_in_row(before: int, ready_s: float) -> int:
    """The new count of crashes in a row, after a run that was ready for `ready_s`. 0: restart at once."""
    if ready_s >= HEALTHY_S:
        return 0
    return 1 if ready_s >= SETTLED_S else before + 1


def delay_s(crashes_in_row: int, first_s: float, max_s: float, draw: float) -> float:
    """The pause before the next start: doubles from `first_s` up to `max_s`.

    `draw` in [0, 1) takes away up to half of it, so that backends that died together do not start together.
    """
    if crashes_in_row <= 0:
        return 0.0
    # The exponent is capped too: 2.0 ** 1024 is an OverflowError.
    full_s = min(max_s, first_s * 2.0 ** min(crashes_in_row - 1, 64))
    return full_s * (1.0 - draw / 2.0)


def gives_up(crash_times: Sequence[float], now: float, crashes: int, within_s: float) -> bool:
    """Whether at least `crashes` of the times lie within the last `within_s`. The last time may be `now`."""
    return sum(1 for time in crash_times if now - within_s <= time <= now) >= crashes
