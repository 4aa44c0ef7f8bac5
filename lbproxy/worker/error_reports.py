"""Errors of backends, told to control a few at a time: pools with `passive` only.

Knows the table's pools and the link. What counts as an error is for the callers to say: a connection that did not come
about, an answer that broke off or made no sense, a time limit.
"""

from collections.abc import Callable

from lbproxy.link.messages import BackendErrors
from lbproxy.model import BackendView, PoolView

REPORT_S = 0.05  # errors of so long are one message


class ErrorReports:
    """`on_first`: called when there is something to settle; as it is, it is sent at once."""

    def __init__(self, pool: Callable[[str], PoolView | None], post: Callable[[BackendErrors], None]) -> None:
        self._pool = pool
        self._post = post
        self._seen: dict[str, tuple[int, str]] = {}
        self.on_first: Callable[[], None] = self.settle

    def note(self, backend: BackendView, why: str) -> None:
        pool = self._pool(backend.id.pool)
        if pool is None or not pool.reports_errors:
            return
        is_first, name = not self._seen, str(backend.id)
        self._seen[name] = (self._seen.get(name, (0, ""))[0] + 1, why)
        if is_first:
            self.on_first()

    def settle(self) -> None:
        """Send what was noted."""
        seen, self._seen = self._seen, {}
        for name, (number, why) in seen.items():
            self._post(BackendErrors(name, number, why))
