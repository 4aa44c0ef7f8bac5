import pytest
from support.each import each

from lbproxy.wire.http2 import flood
from lbproxy.wire.http2.errors import ENHANCE_YOUR_CALM, ConnectionFailed

KINDS = range(len(flood.NAMES))


@each(KINDS, name=flood.NAMES.__getitem__)
def test_a_second_has_a_bound_and_the_next_one_begins_anew(kind: int) -> None:
    counts = flood.Flood()
    for second in (7.0, 8.5 + flood.MOST[kind] / flood.PER_SECOND[kind]):
        for _ in range(flood.MOST[kind]):
            counts.count(kind, second)
        for other in KINDS:
            if other != kind:
                counts.count(other, second)
    with pytest.raises(ConnectionFailed) as failed:
        counts.count(kind, second)
    assert (failed.value.code, failed.value.reason) == (ENHANCE_YOUR_CALM, f"too many {flood.NAMES[kind]}")


def test_a_backend_may_do_more_but_has_a_bound_too() -> None:
    counts = flood.Flood(of_backend=True)
    for _ in range(flood.FACTOR_OF_BACKENDS * flood.MOST[flood.RESET_BY_PEER]):
        counts.count(flood.RESET_BY_PEER, 1.0)
    with pytest.raises(ConnectionFailed):
        counts.count(flood.RESET_BY_PEER, 1.0)


def test_pings_between_data_measure_a_path() -> None:
    counts = flood.Flood()
    for number in range(1, 1000):
        counts.count_ping(number, 1.0)
    for _ in range(flood.MOST[flood.PING]):
        counts.count_ping(999, 1.0)
    with pytest.raises(ConnectionFailed, match="PING"):
        counts.count_ping(999, 1.0)


def test_a_window_is_opened_by_large_steps_as_often_as_data_may_come() -> None:
    counts = flood.Flood()
    for _ in range(20_000):
        counts.count_update(4096, 1.0, waiting=True)
        counts.count_update(12, 1.0, waiting=False)  # behind each message of a client of gRPC
    for _ in range(flood.MOST[flood.SMALL_UPDATE]):
        counts.count_update(1, 1.0, waiting=True)
    with pytest.raises(ConnectionFailed, match="WINDOW_UPDATE of a few bytes"):
        counts.count_update(1, 1.0, waiting=True)


def resets(per_s: int, seconds: int) -> None:
    counts = flood.Flood()
    for number in range(per_s * seconds):
        counts.count(flood.RESET_BY_PEER, number / per_s)


def test_resets_may_come_at_once_but_not_for_long() -> None:
    resets(200, 1)
    resets(90, 60)
    with pytest.raises(ConnectionFailed, match="RST_STREAM"):
        resets(150, 5)
