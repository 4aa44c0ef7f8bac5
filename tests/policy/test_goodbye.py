"""Closes are spread evenly, messages are respected as long as there is time, and nothing lasts for ever."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.model import LeaseKind
from lbproxy.policy.goodbye import Manner, comes_back_in_ms, cut_at, longest_s, manner, schedule, within
from lbproxy.settings import DrainSettings

seconds = st.floats(0, 1000)


def test_thirty_closes_are_spread_evenly_over_two_seconds() -> None:
    offsets = schedule(30, 2.0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(offsets)]
    assert offsets[0] == 0.0
    assert gaps == pytest.approx([2 / 30] * 29)


def test_a_window_of_zero_closes_all_at_once() -> None:
    assert schedule(5, 0.0, phase=0.7) == [0.0] * 5


def test_nobody_to_close_is_an_empty_schedule() -> None:
    assert schedule(0, 5.0) == []


@given(st.integers(1, 200), seconds, st.floats(0, 1, exclude_max=True))
def test_every_stretch_of_the_window_holds_one_close(count: int, window_s: float, phase: float) -> None:
    offsets = schedule(count, window_s, phase)
    assert len(offsets) == count
    assert offsets == sorted(offsets)
    for position, offset in enumerate(offsets):
        low, high = window_s * position / count, window_s * (position + 1) / count
        assert low - 1e-9 <= offset <= high + 1e-9


def test_messages_are_respected_until_the_window_is_over_then_frames_then_nothing() -> None:
    assert [manner(now, window_ends=5.0, goodbye_s=2.0) for now in (0.0, 4.9, 5.0, 6.9, 7.0, 99.0)] == [
        Manner.MESSAGE,
        Manner.MESSAGE,
        Manner.FRAME,
        Manner.FRAME,
        Manner.CUT,
        Manner.CUT,
    ]


@given(seconds, seconds, seconds, seconds)
def test_the_manner_never_softens_as_time_passes(
    one: float, other: float, window_ends: float, goodbye_s: float
) -> None:
    early, late = sorted((one, other))
    assert manner(early, window_ends, goodbye_s) <= manner(late, window_ends, goodbye_s)


def test_a_connection_is_cut_a_goodbye_after_the_window() -> None:
    assert cut_at(window_ends=5.0, goodbye_s=2.0) == 7.0


def test_a_client_who_got_our_close_late_has_a_whole_goodbye_to_answer() -> None:
    assert cut_at(5.0, 2.0, closed_at=1.0) == 7.0
    assert cut_at(5.0, 2.0, closed_at=6.5) == 8.5


def test_a_drain_takes_as_long_as_the_most_patient_of_its_leases() -> None:
    drain = DrainSettings(request_s=30, transfer_s=20, stream_s=10, websocket_s=5, tcp_s=7, goodbye_s=4)
    one_by_one = {kind.value: longest_s(drain, [kind]) for kind in LeaseKind}
    assert one_by_one == {"request": 30, "transfer": 30, "stream": 10, "websocket": 9, "tcp": 7}
    assert longest_s(drain, [LeaseKind.TCP, LeaseKind.WEBSOCKET]) == 9
    assert longest_s(drain, []) == 0


@given(seconds)
def test_within_a_grace_no_kind_outlasts_it(grace_s: float) -> None:
    drain = within(DrainSettings(), grace_s)
    assert max(drain.request_s, drain.transfer_s, drain.stream_s, drain.tcp_s) <= grace_s
    assert min(drain.websocket_s, drain.goodbye_s) >= 0
    assert drain.websocket_s + 2 * drain.goodbye_s <= grace_s + 1e-9


def test_within_a_long_grace_everything_but_transfers_stays_as_it_was() -> None:
    assert within(DrainSettings(), 100.0) == DrainSettings(transfer_s=100.0)


def test_clients_come_back_at_times_all_over_the_rest_of_the_window() -> None:
    times = sorted(comes_back_in_ms(b"%032x" % number, 4.0) for number in range(200))
    assert 0 <= times[0] < 400
    assert 3600 < times[-1] < 4000
    assert sum(time < 2000 for time in times) == pytest.approx(100, abs=25)
    assert comes_back_in_ms(b"a", -1.0) == 0
