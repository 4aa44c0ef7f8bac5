"""What all exchanges of a worker share."""

from support.routing import ONE, TWO, routing
from support.trio_test import trio_test

from lbproxy.link.messages import ToControl, Unreachable
from lbproxy.worker.backends.connections import BackendConnections
from lbproxy.worker.context import Context
from lbproxy.worker.io.reactor import Reactor


@trio_test
async def test_a_backend_that_refused_is_passed_over_and_control_is_told_but_not_of_one_that_is_slow() -> None:
    posted: list[ToControl] = []
    reactor = Reactor(lambda event: None)
    with routing() as bench:
        context = Context(reactor, bench.router, BackendConnections(reactor), posted.append, lambda event: None)
        bench.publish(ONE, TWO)
        context.unreachable(ONE, "ECONNREFUSED")
        assert posted == [Unreachable("web.1@1", "ECONNREFUSED")]
        assert {bench.must_claim().backend for _ in range(4)} == {TWO}
        bench.publish(ONE, TWO)
        context.unreachable(TWO, "no connection within 2s", timed_out=True)
        assert len(posted) == 1  # a full accept queue is no proof of death
        assert {bench.must_claim().backend for _ in range(4)} == {ONE}
        incidents = {one.labels[1] for one in context.tally.take().incidents if one.name == "backend_error"}
        assert incidents == {"connection_refused", "connection_timeout"}
        assert context.proxy_name == bench.router.table.name
        assert not context.access.is_on
    reactor.close()
