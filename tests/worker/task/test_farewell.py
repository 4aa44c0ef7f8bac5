"""Where an endless answer ends once it was told: events and messages whole, a quiet moment if there is one."""

from support.each import each

from lbproxy.model import LeaseKind
from lbproxy.wire.grpc import message
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.task.farewell import (
    ANSWER_S,
    BUSY_S,
    CUT_S,
    LEAD_S,
    QUIET_S,
    STATUS_S,
    CallFarewell,
    EventFarewell,
    GoingAway,
    cut_error,
)

ONE = message(b"one")


def a_call(*, may_ask_more: bool = True, moved_at: float = 0.0) -> tuple[CallFarewell, Lease]:
    lease = Lease()
    lease.kind = LeaseKind.REQUEST
    lease.moved_at = moved_at
    call = CallFarewell(b"an id", lease)
    call.may_ask_more = may_ask_more
    return call, lease


def test_an_event_stream_ends_behind_a_whole_event() -> None:
    events = EventFarewell()
    assert events.passes(b"data: 1\n\ndata", 1.0) == b"data: 1\n\ndata"
    events.tell(1.0, 5.0)
    assert not events.is_over(1.0)
    assert events.passes(b": 2\n\ndata: 3", 2.0) == b": 2\n\n"
    assert events.is_over(2.0)
    assert events.trailers(2.0) == ()


def test_a_call_that_nobody_told_goes_on() -> None:
    call, lease = a_call()
    assert call.passes(ONE, 1.0) == ONE
    assert not call.is_over(1e9)
    lease.kind = LeaseKind.STREAM
    assert call.looks_at() == float("inf")


def test_a_call_is_endless_when_its_status_does_not_follow_its_answer() -> None:
    call, _ = a_call(moved_at=1.0)
    call.passes(ONE[:7], 1.0)
    assert not call.is_endless(100.0)
    call.passes(ONE[7:], 1.0)
    assert call.looks_at() == 1.0 + STATUS_S
    assert not call.is_endless(1.0)
    assert call.is_endless(1.0 + STATUS_S)
    call.passes(ONE, 1.0)
    assert call.is_endless(1.0)


def test_a_silent_call_ends_at_once() -> None:
    call, _ = a_call()
    call.tell(100.0, 110.0)
    assert call.is_over(100.0)


def test_what_is_on_its_way_still_arrives() -> None:
    call, _ = a_call()
    call.passes(ONE, 99.95)
    call.tell(100.0, 110.0)
    assert not call.is_over(100.0)
    assert call.passes(ONE, 100.01) == ONE
    assert call.looks_at() == 100.01 + QUIET_S
    assert call.is_over(100.01 + QUIET_S)


def test_a_question_is_given_time_to_find_its_answer() -> None:
    call, _ = a_call()
    call.passes(ONE, 99.5)
    call.asked_at = 99.9
    call.tell(100.0, 110.0)
    assert not call.is_over(99.8 + ANSWER_S)
    assert call.is_over(99.9 + ANSWER_S)
    call.passes(ONE, 100.5)
    assert call.looks_at() == 100.5 + QUIET_S


@each([(True, 100.0 + BUSY_S - LEAD_S), (False, 110.0 - CUT_S - LEAD_S)])
def test_a_busy_call_ends_behind_a_message_when_its_time_is_over(case: tuple[bool, float]) -> None:
    may_ask_more, ends_by = case
    call, _ = a_call(may_ask_more=may_ask_more)
    call.tell(100.0, 110.0)
    assert call.passes(ONE + ONE[:3], ends_by - 0.01) == ONE + ONE[:3]
    assert not call.is_over(ends_by), "a message is in hand"
    assert call.passes(ONE[3:5], ends_by) == ONE[3:5]
    assert call.passes(ONE[5:] + ONE + ONE[:7], ends_by) == ONE[5:] + ONE
    assert call.is_over(ends_by)


def test_a_client_that_asks_and_asks_is_not_waited_for() -> None:
    call, _ = a_call()
    call.tell(100.0, 110.0)
    call.asked_at = 100.0 + BUSY_S
    assert not call.is_over(99.99 + BUSY_S)
    assert call.is_over(100.0 + BUSY_S)


def test_a_window_that_becomes_shorter_ends_a_call_sooner() -> None:
    call, _ = a_call(may_ask_more=False)
    call.tell(100.0, 110.0)
    call.tell(103.0, 104.0)
    call.asked_at = 103.45
    assert call.looks_at() == 103.5


def test_the_client_is_told_unavailable_and_when_to_come_back() -> None:
    call, _ = a_call()
    call.tell(100.0, 110.0)
    status, text, pushback = call.trailers(102.0)
    assert (status, text) == (b"grpc-status: 14", b"grpc-message: going away")
    assert 0 <= int(pushback.removeprefix(b"grpc-retry-pushback-ms: ")) <= 8000
    assert call.pushback_ms(200.0) == 0
    assert GoingAway(5).pushback_ms == 5


@each(
    [
        ((False, False, False), (504, "http_response_timeout")),
        ((False, True, False), (503, "destination_unavailable")),
        ((True, True, False), (504, "cut")),
        ((False, False, True), (503, "destination_unavailable")),
        ((True, False, True), (504, "cut")),
    ]
)
def test_what_is_cut_says_whether_it_may_come_again(case: tuple[tuple[bool, bool, bool], tuple[int, str]]) -> None:
    (begun, may_replay, is_grpc), wanted = case
    error = cut_error(begun=begun, may_replay=may_replay, is_grpc=is_grpc)
    assert (error.status, error.token) == wanted
