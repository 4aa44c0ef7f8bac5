"""What a drain does to each kind of lease, in a time that the test makes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.model import BackendId, BackendView, LeaseKind
from lbproxy.settings import DrainSettings
from lbproxy.worker.leases.drain import ECHO_SLACK_S, LEAST_STREAM_S, STALLED_S, Lease, Leases

BACKEND = BackendView(BackendId("web", 1, 1), Address("127.0.0.1", 20000), cell=3)
DRAIN = DrainSettings(
    request_s=30.0, transfer_s=900.0, stream_s=20.0, websocket_s=6.0, tcp_s=40.0, goodbye_s=2.0
)  # fmt: skip
LONG_LIVED = (LeaseKind.STREAM, LeaseKind.WEBSOCKET)


class Told:
    """Remembers when it was told goodbye, and with which window."""

    def __init__(self) -> None:
        self.windows: list[float] = []

    def __call__(self, window_ends: float) -> None:
        self.windows.append(window_ends)


def lease_of(kind: LeaseKind, started: float = 0.0, told: Callable[[float], None] | None = None) -> Lease:
    lease = Lease()
    lease.backend, lease.kind = BACKEND, kind
    lease.started = lease.moved_at = started
    lease.say_goodbye = told
    return lease


def leases_of(*leases: Lease) -> Leases:
    held = Leases(BACKEND, 0, {})
    for lease in leases:
        held.held.add(lease)
    return held


def test_leases_are_counted() -> None:
    held = leases_of(*(lease_of(kind) for kind in (*LeaseKind, LeaseKind.REQUEST)))
    assert len(held) == 6
    assert not held.empty


def test_a_lease_that_becomes_a_websocket_has_that_kind() -> None:
    lease = lease_of(LeaseKind.REQUEST)
    held = leases_of(lease)
    held.change(lease, LeaseKind.WEBSOCKET, Told())
    assert [one.kind for one in held.held] == [LeaseKind.WEBSOCKET]


def test_what_is_handed_on_takes_the_place_of_the_other() -> None:
    lease = lease_of(LeaseKind.REQUEST, started=1.0)
    held = leases_of(lease)
    held.change(lease, LeaseKind.TRANSFER)
    lease.moved_at = 2.0
    lease.overdue = True
    lease.on_cut = pytest.fail
    other = held.hand_on(lease)
    assert held.held == {other}
    assert (other.backend, other.kind, other.started, other.moved_at) == (BACKEND, LeaseKind.TRANSFER, 1.0, 2.0)
    assert other.leases is held
    assert other.overdue  # it is not due once more
    other.cut()  # whoever had it before is not cut


def test_without_a_drain_nothing_is_ever_due() -> None:
    held = leases_of(*(lease_of(kind, told=Told()) for kind in LeaseKind))
    assert held.due(1e9) == []
    assert held.tell(1e9) == 0
    assert held.next_due(0.0) is None


@pytest.mark.parametrize(
    ("kind", "grace_s"),
    [
        (LeaseKind.REQUEST, 30.0),
        (LeaseKind.TRANSFER, 30.0),  # nothing moves
        (LeaseKind.STREAM, 20.0),
        (LeaseKind.WEBSOCKET, 8.0),
        (LeaseKind.TCP, 40.0),
    ],
)
def test_each_kind_has_its_own_grace_from_the_start_of_the_drain(kind: LeaseKind, grace_s: float) -> None:
    lease = lease_of(kind)
    held = leases_of(lease)
    held.begin(DRAIN, now=100.0)
    assert held.next_due(100.0) == 100.0 + grace_s
    assert held.due(100.0 + grace_s - 0.001) == []
    assert held.due(100.0 + grace_s) == [lease]


def test_a_lease_is_due_once_and_stays_until_it_is_removed() -> None:
    lease = lease_of(LeaseKind.REQUEST)
    held = leases_of(lease)
    held.begin(DRAIN, now=0.0)
    assert held.due(30.0) == [lease]
    assert held.due(31.0) == []
    assert held.next_due(31.0) is None
    assert not held.empty
    assert held.remove(lease)
    assert held.empty


def test_the_last_one_to_leave_ends_the_drain_and_nobody_else_does() -> None:
    first, last = lease_of(LeaseKind.REQUEST), lease_of(LeaseKind.TCP)
    held = leases_of(first, last)
    held.begin(DRAIN, now=0.0)
    assert not held.remove(first)
    assert held.remove(last)
    assert not held.remove(last)


def test_leaving_an_undrained_backend_ends_nothing() -> None:
    lease = lease_of(LeaseKind.REQUEST)
    held = leases_of(lease)
    assert not held.remove(lease)
    assert held.empty


def test_a_transfer_that_keeps_moving_outlasts_the_grace_of_requests() -> None:
    lease = lease_of(LeaseKind.TRANSFER)
    held = leases_of(lease)
    held.begin(DRAIN, now=0.0)
    for now in range(0, 100, 4):
        lease.moved_at = float(now)
        assert held.due(now) == []
        assert held.next_due(now) == max(30.0, now + STALLED_S)
    assert held.due(lease.moved_at + STALLED_S) == [lease]


def test_a_transfer_that_never_stalls_is_cut_at_its_cap() -> None:
    lease = lease_of(LeaseKind.TRANSFER)
    held = leases_of(lease)
    held.begin(DRAIN, now=0.0)
    lease.moved_at = 899.9
    assert held.due(899.9) == []
    assert held.due(900.0) == [lease]


def test_a_cap_below_the_grace_of_requests_does_not_shorten_it() -> None:
    held = leases_of(lease_of(LeaseKind.TRANSFER))
    held.begin(DrainSettings(request_s=30.0, transfer_s=5.0), now=0.0)
    assert held.next_due(0.0) == 30.0


def test_websockets_are_told_one_after_the_other_over_their_window_the_oldest_first() -> None:
    told = [Told() for _ in range(6)]
    held = leases_of(*(lease_of(LeaseKind.WEBSOCKET, float(-age), told[age]) for age in range(6)))
    held.begin(DRAIN, now=100.0)
    for second in range(6):
        assert held.tell(100.0 + second) == 1
        assert [len(one.windows) for one in reversed(told)] == [1] * (second + 1) + [0] * (5 - second)
        assert held.next_due(100.0 + second) == (101.0 + second if second < 5 else 108.0)
    assert {window for one in told for window in one.windows} == {106.0}


def test_a_phase_moves_the_first_goodbye_into_its_stretch_of_the_window() -> None:
    told = Told()
    held = leases_of(lease_of(LeaseKind.WEBSOCKET, told=told))
    held.begin(DRAIN, now=100.0, phase=0.5)
    assert held.next_due(100.0) == 103.0
    assert held.tell(102.9) == 0
    assert held.tell(103.0) == 1


def test_streams_are_told_early_enough_to_find_the_end_of_an_event() -> None:
    told = [Told() for _ in range(9)]
    held = leases_of(*(lease_of(LeaseKind.STREAM, told=one) for one in told))
    held.begin(DRAIN, now=0.0)
    assert held.tell(18.0) == 9
    assert {window for one in told for window in one.windows} == {20.0}


def test_requests_transfers_and_tcp_are_told_nothing() -> None:
    held = leases_of(*(lease_of(kind) for kind in LeaseKind if kind not in LONG_LIVED))
    held.begin(DRAIN, now=0.0)
    assert held.tell(1e9) == 0


def test_who_left_before_its_turn_is_not_told() -> None:
    told = Told()
    lease = lease_of(LeaseKind.WEBSOCKET, told=told)
    held = leases_of(lease, lease_of(LeaseKind.REQUEST))
    held.begin(DRAIN, now=0.0, phase=0.9)
    held.remove(lease)
    assert held.tell(10.0) == 0
    assert told.windows == []


def test_a_request_that_turns_websocket_on_a_draining_backend_is_told_at_once() -> None:
    told = Told()
    lease = lease_of(LeaseKind.REQUEST)
    held = leases_of(lease)
    held.begin(DRAIN, now=0.0)
    held.change(lease, LeaseKind.WEBSOCKET, told)
    assert held.next_due(1.0) == 1.0
    assert held.tell(1.0) == 1
    held.change(lease, LeaseKind.WEBSOCKET, told)
    assert held.tell(2.0) == 0
    assert told.windows == [6.0]
    assert held.next_due(2.0) == 8.0


def test_a_client_who_got_our_close_late_has_a_whole_goodbye_to_answer() -> None:
    lease = lease_of(LeaseKind.WEBSOCKET, told=Told())
    held = leases_of(lease)
    held.begin(DRAIN, now=0.0)
    held.tell(6.0)
    lease.closed_at = 7.5
    assert held.due(9.5) == []  # the relay itself lets go of it now, and that is no cut
    assert held.due(9.5 + ECHO_SLACK_S) == [lease]


def test_without_any_grace_a_stream_is_still_told_before_it_is_cut() -> None:
    stream = lease_of(LeaseKind.STREAM, told=Told())
    held = leases_of(stream)
    held.begin(replace(DRAIN, stream_s=0.0), now=0.0)
    assert held.tell(0.0) == 1
    assert held.due(0.0) == []
    assert held.due(LEAST_STREAM_S) == [stream]


def test_a_drain_that_is_taken_back_leaves_everybody_in_peace() -> None:
    told = Told()
    held = leases_of(*(lease_of(kind, told=told if kind in LONG_LIVED else None) for kind in LeaseKind))
    held.begin(DRAIN, now=0.0, phase=0.5)
    held.take_back()
    assert not held.draining
    assert held.tell(1e9) == 0
    assert held.due(1e9) == []
    assert held.next_due(0.0) is None
    assert told.windows == []


def test_who_was_told_goodbye_before_the_drain_was_taken_back_still_has_an_end() -> None:
    gone, stays = (lease_of(LeaseKind.WEBSOCKET, float(age), Told()) for age in (1, 2))
    held = leases_of(gone, stays)
    held.begin(DRAIN, now=0.0)
    assert held.tell(0.0) == 1
    held.take_back()
    assert held.next_due(1.0) == 8.0
    assert held.due(8.0) == [gone]
    assert held.next_due(8.0) is None


def test_a_drain_that_begins_again_after_being_taken_back_tells_nobody_twice() -> None:
    told = [Told(), Told()]
    held = leases_of(*(lease_of(LeaseKind.WEBSOCKET, float(age), told[age]) for age in (0, 1)))
    held.begin(DRAIN, now=0.0)
    held.tell(0.0)
    held.take_back()
    held.begin(DRAIN, now=50.0)
    held.tell(60.0)
    assert [one.windows for one in told] == [[6.0], [56.0]]


def test_a_second_drain_shortens_graces_and_never_extends_them() -> None:
    held = leases_of(request := lease_of(LeaseKind.REQUEST), lease_of(LeaseKind.TCP))
    held.begin(DRAIN, now=0.0)
    held.begin(DrainSettings(request_s=100.0, tcp_s=1.0), now=10.0)
    assert held.next_due(10.0) == 11.0
    held.due(11.0)
    assert held.due(29.9) == []
    assert held.due(30.0) == [request]


def test_a_second_drain_with_a_shorter_window_brings_the_goodbyes_forward() -> None:
    told = [Told() for _ in range(4)]
    held = leases_of(*(lease_of(LeaseKind.WEBSOCKET, float(n), told[n]) for n in range(4)))
    held.begin(DRAIN, now=0.0)
    held.tell(0.0)
    held.begin(DrainSettings(websocket_s=0.0, goodbye_s=1.0), now=1.0)
    assert held.tell(1.0) == 4
    assert [one.windows for one in told] == [[6.0, 1.0], [1.0], [1.0], [1.0]]
    assert len(held.due(2.0)) == 4


@given(
    st.lists(st.tuples(st.sampled_from(list(LeaseKind)), st.floats(0, 100)), max_size=20),
    st.floats(0, 1, exclude_max=True),
)
def test_whoever_waits_for_next_due_sees_every_lease_out(made: list[tuple[LeaseKind, float]], phase: float) -> None:
    told = Told()
    held = leases_of(*(lease_of(kind, at, told if kind in LONG_LIVED else None) for kind, at in made))
    held.begin(DRAIN, now=100.0, phase=phase)
    now = 100.0
    for _ in range(100):
        moment = held.next_due(now)
        if moment is None:
            break
        assert moment >= now
        now = moment
        happened = held.tell(now)
        for lease in held.due(now):
            held.remove(lease)
            happened += 1
        assert happened
    assert held.empty
    assert len(told.windows) == sum(kind in LONG_LIVED for kind, _ in made)
    assert now <= 140.0


def test_one_lease_is_dismissed_as_a_drain_would_and_the_others_stay() -> None:
    told, other = Told(), Told()
    leases = lease_of(LeaseKind.WEBSOCKET, told=told), lease_of(LeaseKind.WEBSOCKET, told=other)
    held = leases_of(*leases)
    assert held.left_s(leases[0], 10.0) is None
    assert held.dismiss(leases[0], DRAIN, 10.0)
    assert held.dismiss(leases[0], DRAIN, 11.0)
    assert (told.windows, other.windows, leases[0].drain) == ([16.0], [], DRAIN)
    assert (held.left_s(leases[0], 10.0), held.left_s(leases[1], 10.0)) == (8.0, None)
    assert held.next_due(10.0) == 18.0
    assert (held.due(17.9), held.due(18.0)) == ([], [leases[0]])
    request = lease_of(LeaseKind.REQUEST)
    assert not leases_of(request).dismiss(request, DRAIN, 0.0)


def test_a_dismissal_does_not_outlast_the_drain_that_runs() -> None:
    told = Told()
    lease = lease_of(LeaseKind.STREAM, told=told)
    held = leases_of(lease)
    held.begin(replace(DRAIN, stream_s=5.0), 0.0)
    assert held.dismiss(lease, DRAIN, 1.0)
    assert told.windows == [5.0]
    assert held.tell(100.0) == 0
