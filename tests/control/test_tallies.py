"""Sums of what workers count, and the last ten seconds of them."""

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.control.tallies import Pace, Tallies
from lbproxy.link.codec import LinkBroken
from lbproxy.link.messages import Exchanges, Incidents, Increase, QueueWaits, Stats
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S

NONE = (0,) * (len(DURATION_BOUNDS_S) + 1)


def buckets(**numbers: int) -> tuple[int, ...]:
    """buckets(b0=5, b3=1)"""
    made = list(NONE)
    for name, number in numbers.items():
        made[int(name[1:])] = number
    return tuple(made)


def stats(*exchanges: Exchanges, served: int = 0, **handed_over: int) -> Stats:
    return Stats(0, 0, served, handed_over, increase=Increase(exchanges))


def get(number: int, took_s: float = 0.1, pool: str = "web") -> Exchanges:
    return Exchanges(pool, "GET", 200, buckets(b0=number), took_s, 10, 20)


NOTHING = stats()


@trio_test(clock="autojump")
async def test_what_every_worker_counts_is_added_up() -> None:
    tallies = Tallies()
    tallies.add(NOTHING, stats(get(3), Exchanges("web", "GET", 502, buckets(b13=1), 30.0, 0, 5)))
    tallies.add(NOTHING, stats(get(4), get(1, pool="api")))
    assert tallies.requests == {("web", "GET", "200"): 7, ("web", "GET", "502"): 1, ("api", "GET", "200"): 1}
    assert tallies.server_errors() == {"web": 1}
    assert (tallies.durations["web"].count, tallies.durations["web"].total) == (8, pytest.approx(30.2))
    assert (tallies.request_bytes, tallies.response_bytes) == ({"web": 20, "api": 10}, {"web": 45, "api": 20})


@trio_test(clock="autojump")
async def test_waits_and_incidents_are_added_up() -> None:
    tallies = Tallies()
    for _ in range(2):
        waits, incidents = QueueWaits("web", buckets(b5=2), 0.1), Incidents("retry", ("web", "connect"), 3)
        tallies.add(NOTHING, Stats(0, 0, 0, {}, increase=Increase((), (waits,), (incidents,))))
    assert tallies.waits["web"].count == 4
    assert tallies.incidents == {"retry": {("web", "connect"): 6}}


@trio_test(clock="autojump")
async def test_the_express_lane_goes_on_where_a_dead_worker_was() -> None:
    tallies = Tallies()
    first, second = stats(served=10, stream=2), stats(served=15, stream=2, upgrade=1)
    tallies.add(NOTHING, first)
    tallies.add(first, second)
    tallies.add(NOTHING, stats(served=1))  # of its successor
    assert tallies.express == {"served": 16, "stream": 2, "upgrade": 1}


@trio_test(clock="autojump", timeout_s=60)
async def test_the_pace_is_that_of_the_last_ten_seconds() -> None:
    tallies = Tallies()
    tallies.add(NOTHING, stats(get(1000)))
    for _ in range(30):
        await trio.sleep(1)
        tallies.add(NOTHING, stats(Exchanges("web", "GET", 200, buckets(b0=98, b4=2), 0.3, 0, 0)))
    pace = tallies.pace("web")
    assert pace.requests_per_s == 100
    assert pace.p50_s == pytest.approx(0.00051, rel=0.01)
    assert pace.p99_s == pytest.approx(0.0175)
    assert tallies.pace("api") == Pace(0.0, None, None)
    await trio.sleep(11)
    assert tallies.pace("web") == Pace(0.0, None, None)


@trio_test(clock="autojump")
async def test_a_young_control_has_no_ten_seconds_to_divide_by() -> None:
    tallies = Tallies()
    assert tallies.pace("web") == Pace(0.0, None, None)
    tallies.add(NOTHING, stats())
    await trio.sleep(4)
    tallies.add(NOTHING, stats(get(100)))
    assert tallies.pace("web").requests_per_s == 25


@pytest.mark.parametrize(
    "increase",
    [
        Increase((Exchanges("web", "GET", 200, buckets(b0=-1), 0.0, 0, 0),)),
        Increase((Exchanges("web", "GET", 200, NONE, -0.1, 0, 0),)),
        Increase((Exchanges("web", "GET", 200, NONE, 0.0, 0, -1),)),
        Increase((Exchanges("web", "GET", 200, (0, 0), 0.0, 0, 0),)),
        Increase((), (QueueWaits("web", NONE, -1.0),)),
        Increase((), (), (Incidents("retry", ("web", "connect"), -1),)),
    ],
)
@trio_test(clock="autojump")
async def test_a_worker_that_counts_backwards_is_not_believed(increase: Increase) -> None:
    tallies = Tallies()
    with pytest.raises(LinkBroken):
        tallies.add(NOTHING, Stats(0, 0, 5, {}, increase=increase))
    assert tallies.requests == tallies.express == {}
