"""The connection decides how an attempt talks to its backend."""

from typing import Any

from support.memory import Bench
from support.trio_test import trio_test

from lbproxy.settings import PoolTimeouts
from lbproxy.worker.backends.http2_stream import BackendStream
from lbproxy.worker.handover import Begun
from lbproxy.worker.task.backend_sides import side_of
from lbproxy.worker.task.http1_backend import Http1Backend
from lbproxy.worker.task.http2_backend import Http2Backend


@trio_test(clock="autojump", timeout_s=100)
async def test_a_stream_is_http2_and_a_connection_of_its_own_is_http1() -> None:
    bench = Bench()
    exchange = bench.exchange()
    _, begun = bench.begun()
    assert isinstance(side_of(exchange, begun), Http1Backend)
    shared: Any = bench
    stream = BackendStream(shared, reused=False)
    assert isinstance(side_of(exchange, Begun(begun.lease, stream, PoolTimeouts())), Http2Backend)
    bench.router.release(begun.lease)
    bench.close()
