"""A request is sent again only if a second arrival does no harm."""

import pytest

from lbproxy.policy.retry import Retry, after_no_answer, may_replay


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
def test_an_idempotent_method_may_be_replayed(method: bytes) -> None:
    assert may_replay(method)


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"CONNECT", b"PROPFIND", b"get", b"", b"GET "])
def test_any_other_method_may_not(method: bytes) -> None:
    assert not may_replay(method)


@pytest.mark.parametrize(
    ("reused", "replayable", "attempts_left", "follows"),
    [
        (True, True, 0, Retry.FRESH),  # the end of a kept connection is no attempt
        (True, True, 1, Retry.FRESH),
        (True, False, 1, Retry.CLOSE),
        (False, True, 1, Retry.ELSEWHERE),
        (False, True, 0, Retry.FAIL),
        (False, False, 1, Retry.FAIL),
    ],
)
def test_what_follows_a_connection_that_ended_without_an_answer(
    reused: bool, replayable: bool, attempts_left: int, follows: Retry
) -> None:
    assert after_no_answer(reused=reused, replayable=replayable, attempts_left=attempts_left) is follows
