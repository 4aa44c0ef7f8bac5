from lbproxy.settings import PoolTimeouts
from lbproxy.wire.head import Lines, read_request
from lbproxy.worker.task.time_limits import NEVER, SLACK_S, TimeLimits, limits_of_call, time_limits

TIMEOUTS = PoolTimeouts(response_s=7.0, idle_s=8.0)


def head(*lines: bytes):
    return read_request(b"\r\n".join((b"POST /a.B/C HTTP/1.1", b"Host: a", *lines, b"", b"")), Lines(), 100)


def test_a_request_has_the_limits_of_its_pool() -> None:
    assert time_limits(TIMEOUTS) == TimeLimits(7.0, 8.0, NEVER)


def test_a_call_without_a_deadline_has_no_limit() -> None:
    assert limits_of_call(head(), TIMEOUTS, 100.0) == TimeLimits(NEVER, NEVER, NEVER)


def test_a_call_with_a_deadline_ends_there_and_its_head_is_waited_for_as_the_pool_says() -> None:
    assert limits_of_call(head(b"grpc-timeout: 2S"), TIMEOUTS, 100.0) == TimeLimits(7.0, NEVER, 102.0 + SLACK_S)
