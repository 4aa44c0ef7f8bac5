"""Where every exchange, WebSocket and TCP session ends: counted, written down, and told where it failed.

The express lane inlines this in its usual way only (express/body.py, send_last; express/finish.py, done):
tests/worker/test_ending.py holds both together. Only HTTP exchanges are counted by method and status, a WebSocket at
its 101 (`count_exchange`).
"""

from lbproxy.link.grid import Counter
from lbproxy.link.messages import FailedExchange, Try
from lbproxy.telemetry.access import AccessRecord
from lbproxy.wire.head import RequestHead
from lbproxy.worker.context import Context
from lbproxy.worker.tally import count

SHOWN = 200  # characters of a failed request's target


def count_exchange(context: Context, record: AccessRecord, pool: str | None) -> None:
    """Count an HTTP exchange by method and status. `pool`: None where no pool takes the request."""
    generation = record.served_by.generation if record.served_by is not None else 0
    series = context.tally.series(pool or "", record.head.method, record.status, generation)
    count(series, record.duration_s, record.request_bytes, record.response_bytes)


def end(
    context: Context, record: AccessRecord, *, cell: int | None, failed: str | None = None, tries: tuple[Try, ...] = ()
) -> None:
    """Count, log and report one piece of work that is over. To be called once.

    `cell`: the grid's column it counts in, its backend's or its pool's; None: it never got so far as to have a pool.
    `failed`: the name of the pool whose client did not get a whole answer of its backend; None: it did, or it left.
    """
    if cell is not None:
        context.router.count(cell, Counter.REQUESTS)
    if context.access.is_on:
        context.access.add(record)
    if failed is not None:
        fail(context, cell, failure_of(record, failed or None, tries))


def failure_of(record: AccessRecord, pool: str | None, tries: tuple[Try, ...] = ()) -> FailedExchange:
    return FailedExchange(
        record.time,
        record.duration_s,
        record.client.decode("latin-1"),
        request_of(record.head),
        record.request_id.decode("latin-1"),
        pool,
        None if record.served_by is None else str(record.served_by),
        record.status,
        record.error or "proxy_internal_error",
        record.reason or "a mistake of lbproxy's own",
        tries,
    )


def request_of(head: RequestHead) -> str:
    return f"{head.method.decode('latin-1')} {head.target.decode('latin-1')}"[:SHOWN]


def fail(context: Context, cell: int | None, failure: FailedExchange) -> None:
    """Count a failed exchange, and tell control why it failed."""
    if cell is not None:
        context.router.count(cell, Counter.FAILED)
    if failure.pool is not None:
        context.tally.note("backend_error", failure.pool, failure.error)
    context.failures.tell(failure)
