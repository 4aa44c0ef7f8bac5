"""The windows that backends get."""

from lbproxy.worker.backends.http2_settings import MOST_STREAMS, SETTINGS


def test_a_slow_stream_cannot_hold_the_window_of_the_connection() -> None:
    assert SETTINGS.connection_window_bytes >= MOST_STREAMS * SETTINGS.stream_window_bytes
