"""Where every exchange, WebSocket and TCP session ends: counted, written down, and told where it failed.

The express lane inlines this in its usual way only (express/body.py, send_last; express/finish.py, done):
tests/worker/test_ending.py holds both together.
"""

from lbproxy.link.grid import Counter
from lbproxy.telemetry.access import AccessRecord
from lbproxy.telemetry.events import ExchangeFailed
from lbproxy.worker.context import Context


def end(context: Context, record: AccessRecord, *, cell: int | None, failed: str | None = None) -> None:
    """Count, log and report one piece of work that is over. To be called once.

    `cell`: the grid's column it counts in, its backend's or its pool's; None: it never got so far as to have a pool.
    `failed`: the name of the pool whose client did not get a whole answer of its backend; None: it did, or it left.
    """
    if cell is not None:
        context.router.count(cell, Counter.REQUESTS)
    if context.access.is_on:
        context.access.add(record)
    if failed is None:
        return
    failure = ExchangeFailed(
        record.request_id.decode("latin-1"),
        failed or None,
        None if record.served_by is None else str(record.served_by),
        record.status,
        record.error or "proxy_internal_error",
        record.reason or "a mistake of lbproxy's own",
    )
    fail(context, cell, failure)


def fail(context: Context, cell: int | None, failure: ExchangeFailed) -> None:
    """Count a failed exchange, and tell the operator why it failed."""
    if cell is not None:
        context.router.count(cell, Counter.FAILED)
    context.failures.tell(failure)
