"""Only what cannot have had an effect is tried again."""

import itertools

import pytest

from lbproxy.errors import Stage
from lbproxy.policy.retry import may_replay, may_retry


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
def test_an_idempotent_method_may_be_replayed(method: bytes) -> None:
    assert may_replay(method)


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"CONNECT", b"PROPFIND", b"get", b"", b"GET "])
def test_any_other_method_may_not(method: bytes) -> None:
    assert not may_replay(method)


@pytest.mark.parametrize(("reused", "replayable"), list(itertools.product([False, True], repeat=2)))
def test_a_connection_that_was_never_established_is_always_retried(reused: bool, replayable: bool) -> None:
    assert may_retry(Stage.CONNECT, reused, replayable)


def test_a_stale_connection_is_retried_only_for_a_request_that_may_be_replayed() -> None:
    assert may_retry(Stage.SEND, reused=True, replayable=True)
    assert not may_retry(Stage.SEND, reused=True, replayable=False)


def test_a_fresh_connection_that_breaks_off_is_not_retried() -> None:
    assert not may_retry(Stage.SEND, reused=False, replayable=True)
    assert not may_retry(Stage.SEND, reused=False, replayable=False)


@pytest.mark.parametrize("stage", [Stage.CLAIM, Stage.RECEIVE, Stage.REPLY])
def test_nothing_is_retried_without_a_backend_or_after_it_has_spoken(stage: Stage) -> None:
    for reused, replayable in itertools.product([False, True], repeat=2):
        assert not may_retry(stage, reused, replayable)
