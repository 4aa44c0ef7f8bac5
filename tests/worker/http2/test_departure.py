"""The end of an HTTP/2 connection: both GOAWAY frames, the round trip between them, and who is told when."""

import pytest
import trio
import trio.lowlevel
from support.trio_test import trio_test

from lbproxy.telemetry.events import Event
from lbproxy.wire.http2.errors import NO_ERROR
from lbproxy.worker.http2.departure import PING, ROUND_TRIP_S, SPREAD_S, Departure, Stage, stop_all
from lbproxy.worker.io.reactor import Reactor


class Recorded:
    """A connection that writes down what it is asked for."""

    def __init__(self, streams: int = 0) -> None:
        self.done: list[object] = []
        self.streams = dict.fromkeys(range(streams))

    def goaway(self, code: int, last_id: int | None = None) -> None:
        assert code == NO_ERROR
        self.done.append(("goaway", last_id))

    def ping(self, payload: bytes) -> None:
        self.done.append("ping")

    def close_if_done(self) -> None:
        self.done.append("close if done")

    def stop(self, in_s: float = 0.0) -> None:
        self.done.append(in_s)


@pytest.fixture
def reactor():
    events: list[Event] = []
    reactor = Reactor(events.append)
    yield reactor
    reactor.close()
    assert not events


FIRST = [("goaway", 2**31 - 1), "ping"]
LAST = [("goaway", None), "close if done"]


def test_the_second_goaway_waits_for_the_round_trip(reactor: Reactor) -> None:
    connection = Recorded()
    departure = Departure(reactor, connection, 0.0)
    assert connection.done == FIRST
    departure.on_ping_ack(b"another!")
    assert departure.stage is Stage.ANNOUNCED
    departure.on_ping_ack(PING)
    assert (connection.done, departure.is_final) == (FIRST + LAST, True)
    departure.on_ping_ack(PING)
    departure.begin()
    assert connection.done == FIRST + LAST
    departure.forget()


@trio_test(clock="autojump")
async def test_a_client_that_answers_no_ping_has_a_second(reactor: Reactor) -> None:
    connection = Recorded()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await trio.lowlevel.checkpoint()
        departure = Departure(reactor, connection, 2.0)
        await trio.sleep(1.9)
        assert connection.done == []
        await trio.sleep(ROUND_TRIP_S)
        assert connection.done == FIRST
        await trio.sleep(0.5)
        assert connection.done == FIRST + LAST
        assert departure.is_final
        nursery.cancel_scope.cancel()


def test_idle_connections_are_told_one_after_the_other_and_busy_ones_at_once() -> None:
    idle, busy = [Recorded() for _ in range(1000)], [Recorded(streams=1) for _ in range(3)]
    stop_all([*idle, *busy], 30.0)
    assert [one.done for one in busy] == [[0.0]] * 3
    times = [one.done[0] for one in idle]
    assert times == sorted(times)  # type: ignore[type-var]
    assert 4.9 < times[-1] <= 5.0  # type: ignore[operator]
    few = [Recorded() for _ in range(3)]
    stop_all(few, 30.0)
    assert few[-1].done[0] <= 3 * SPREAD_S  # type: ignore[operator]
