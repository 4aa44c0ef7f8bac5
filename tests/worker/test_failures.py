import trio
from support.trio_test import trio_test

from lbproxy.link.messages import FailedExchange, Failures
from lbproxy.telemetry.events import Event, ExchangeFailed
from lbproxy.worker.failures import BATCH, KEPT_PER_S, TOLD_PER_S, FailureReports, event_of


def failed(number: int) -> FailedExchange:
    what = f"id{number}", "web", "web.1@1", 502, "connection_terminated", "it broke off"
    return FailedExchange(1.0, 0.5, "127.0.0.1", "GET /", *what)


@trio_test(clock="autojump")
async def test_a_flood_of_failures_is_thinned_and_every_one_is_counted() -> None:
    events: list[Event] = []
    reports = FailureReports(events.append, lambda message: None)
    for number in range(100):
        reports.tell(failed(number))
    assert events == [event_of(failed(number)) for number in range(TOLD_PER_S)]
    reports.settle()
    assert len(events) == TOLD_PER_S
    await trio.sleep(1.0)
    reports.settle()
    assert isinstance(events[-1], ExchangeFailed)
    assert (events[-1].request_id, events[-1].left_out) == ("id99", 100 - TOLD_PER_S - 1)
    reports.settle()
    assert len(events) == TOLD_PER_S + 1
    reports.tell(failed(100))
    assert events[-1] == event_of(failed(100))


@trio_test(clock="autojump")
async def test_every_failure_goes_to_control_in_batches_as_far_as_there_are_not_too_many() -> None:
    sent: list[Failures] = []
    reports = FailureReports(lambda event: None, sent.append)
    for number in range(BATCH + 7):
        reports.tell(failed(number))
    assert [len(message.items) for message in sent] == [BATCH]
    reports.settle()
    reports.settle()
    assert [len(message.items) for message in sent] == [BATCH, 7]
    for number in range(KEPT_PER_S):
        reports.tell(failed(number))
    reports.settle()
    assert sum(len(message.items) for message in sent) == KEPT_PER_S
    assert sum(message.left_out for message in sent) == BATCH + 7
    await trio.sleep(1.0)
    reports.tell(failed(1))
    reports.settle()
    assert sent[-1] == Failures((failed(1),), 0)
