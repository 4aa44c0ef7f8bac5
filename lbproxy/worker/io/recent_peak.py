"""The largest of the values of the last so many seconds. Knows numbers and times only."""

from collections import deque


class Recent:
    """Keeps only what can still become the largest: later values that are smaller. Times must not fall."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._kept: deque[tuple[float, float]] = deque()  # (when, value), the largest first

    def add(self, now: float, value: float) -> None:
        while self._kept and self._kept[-1][1] <= value:
            self._kept.pop()
        self._kept.append((now, value))

    def largest(self, now: float) -> float:
        """0 when there was none."""
        while self._kept and now - self._kept[0][0] > self._window_s:
            self._kept.popleft()
        return self._kept[0][1] if self._kept else 0.0
