"""When a silent backend is pinged, and when it counts as dead: plain numbers."""

from lbproxy.worker.backends.liveness import NEXT_PING_S, PONG_S, QUIET_S, Liveness


def test_silence_is_followed_by_one_ping_and_no_answer_by_the_end() -> None:
    alive = Liveness(0.0)
    assert alive.next_at == QUIET_S
    alive.heard(5.0)
    assert alive.next_at == 5.0 + QUIET_S
    alive.pinged(25.0)
    assert alive.next_at == 25.0 + PONG_S
    assert not alive.is_dead(25.0 + PONG_S - 0.1)
    assert alive.is_dead(25.0 + PONG_S)


def test_a_backend_that_says_nothing_but_pongs_is_pinged_seldom() -> None:
    """Servers of gRPC end a connection that pings oftener than every five minutes without data."""
    alive = Liveness(0.0)
    alive.pinged(20.0)
    alive.heard(20.1)
    assert alive.next_at == 20.0 + NEXT_PING_S
    alive.heard(100.0)
    alive.said(100.0)
    assert alive.next_at == 100.0 + QUIET_S


def test_a_stream_that_begins_after_a_pause_starts_the_silence_anew() -> None:
    alive = Liveness(0.0)
    alive.begin(1000.0)
    assert alive.next_at == 1000.0 + QUIET_S
