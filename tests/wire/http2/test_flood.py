import pytest

from lbproxy.wire.http2 import flood
from lbproxy.wire.http2.errors import ENHANCE_YOUR_CALM, ConnectionFailed


def test_a_second_has_a_bound_and_the_next_one_begins_anew() -> None:
    counts = flood.Flood()
    for second in (7.0, 8.5):
        for _ in range(flood.MOST_PER_SECOND[flood.PING]):
            counts.count(flood.PING, second)
        counts.count(flood.SETTINGS, second)
    with pytest.raises(ConnectionFailed, match="PING") as failed:
        counts.count(flood.PING, 8.9)
    assert failed.value.code == ENHANCE_YOUR_CALM
