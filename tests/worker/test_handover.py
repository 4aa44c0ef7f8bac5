"""Values with no behaviour: how they pass from lane to lane is tested in test_lanes.py."""

from lbproxy.worker.handover import head_too_slow


def test_a_slow_head_is_a_408_that_names_the_limit() -> None:
    refused = head_too_slow(2.5)
    assert (refused.status, refused.reason) == (408, "the request head was not complete within 2.5s")
