"""Which implementation of the backend door an attempt gets (backend_side.py): its connection decides."""

from typing import Protocol

from lbproxy.wire.head import RequestHead
from lbproxy.worker.backends.http2_stream import BackendStream
from lbproxy.worker.context import Context
from lbproxy.worker.handover import Begun
from lbproxy.worker.task.backend_side import BackendSide
from lbproxy.worker.task.http1_backend import Http1Backend
from lbproxy.worker.task.http2_backend import Http2Backend


class Exchange(Protocol):
    """What is asked of the exchange that the attempt is made for."""

    context: Context
    head: RequestHead

    @property
    def may_replay(self) -> bool: ...


def side_of(exchange: Exchange, begun: Begun) -> BackendSide:
    context, head = exchange.context, exchange.head
    if isinstance(begun.connection, BackendStream):
        encoded = context.shared.encoded
        return Http2Backend(begun.connection, head.method, encoded, context.lines, lambda: exchange.may_replay)
    pool = context.router.pool(begun.lease.backend.id.pool)
    accept_bare_lf = pool is not None and pool.accept_bare_lf
    return Http1Backend(begun.connection, head, context.backends, context.lines, accept_bare_lf=accept_bare_lf)
