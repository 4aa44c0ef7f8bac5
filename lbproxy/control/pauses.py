"""`pause` and `unpause`: requests of a pool wait, or are answered with a page, until they are told otherwise.

WebSockets and TCP sessions go on. It stands in the table, so a worker that is replaced knows it, too.
"""

from lbproxy.control.context import ControlContext
from lbproxy.control.plan import CannotDo, running_pool
from lbproxy.control.pool import Pause
from lbproxy.telemetry.events import PoolPaused, PoolUnpaused


async def pause(context: ControlContext, name: str, *, max_wait_s: float | None, page: str | None) -> None:
    """`max_wait_s`: for each request; None: as the pool's queue says. `page`: answer with it and do not wait ("": the
    usual page). Returns when every worker knows. Raises UnknownPool."""
    pool = running_pool(context, name)
    pool.pause = Pause(max_wait_s, page)
    context.emit(PoolPaused(name, max_wait_s, maintenance=page is not None))
    await context.fleet.wait_applied(context.fleet.publish())


async def unpause(context: ControlContext, name: str) -> None:
    """Raises UnknownPool, and CannotDo if it is not paused."""
    pool = running_pool(context, name)
    if pool.pause is None:
        raise CannotDo(f"{name} is not paused")
    pool.pause = None
    context.emit(PoolUnpaused(name))
    await context.fleet.wait_applied(context.fleet.publish())
