import trio
from support.trio_test import trio_test

from lbproxy.telemetry.events import Event, ExchangeFailed
from lbproxy.worker.failures import TOLD_PER_S, FailureReports


def failed(number: int) -> ExchangeFailed:
    return ExchangeFailed(f"id{number}", "web", "web.1", 502, "connection_terminated", "it broke off")


@trio_test(clock="autojump")
async def test_a_flood_of_failures_is_thinned_and_every_one_is_counted() -> None:
    events: list[Event] = []
    reports = FailureReports(events.append)
    for number in range(100):
        reports.tell(failed(number))
    assert events == [failed(number) for number in range(TOLD_PER_S)]
    reports.settle()
    assert len(events) == TOLD_PER_S
    await trio.sleep(1.0)
    reports.settle()
    assert isinstance(events[-1], ExchangeFailed)
    assert (events[-1].request_id, events[-1].left_out) == ("id99", 100 - TOLD_PER_S - 1)
    reports.settle()
    assert len(events) == TOLD_PER_S + 1
    reports.tell(failed(100))
    assert events[-1] == failed(100)
