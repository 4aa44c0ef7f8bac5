"""Heads of a backend's responses at every cut; what each kind of end means is tested in test_attempt.py."""

import pytest
from support.each import each
from support.memory import Bench
from support.trio_test import trio_test

from lbproxy.errors import ProxyError
from lbproxy.wire.head import Refused
from lbproxy.worker.task.response_heads import NoAnswer, ResponseHeads

TWO = b"\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@each(range(len(TWO) + 1))
@trio_test(clock="autojump")
async def test_heads_are_read_whatever_the_cut_and_what_follows_stays(cut: int) -> None:
    bench = Bench()
    stream, connection = bench.connection()
    stream.says(*filter(None, (TWO[:cut], TWO[cut:])))
    heads = ResponseHeads(connection, b"GET", bench.context.lines)
    assert [(await heads.read()).status for _ in range(2)] == [103, 200]
    rest = connection.buffer
    while len(rest) < 5:
        rest += await stream.receive()
    assert rest == b"hello"
    bench.close()


BARE = b"HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.0 200 OK\r\nContent-Length: 5\n\nhe\nlo"


@each(range(len(BARE) + 1))
@trio_test(clock="autojump")
async def test_heads_with_bare_line_feeds_are_read_where_they_are_accepted(cut: int) -> None:
    bench = Bench()
    stream, connection = bench.connection()
    stream.says(*filter(None, (BARE[:cut], BARE[cut:])))
    heads = ResponseHeads(connection, b"GET", bench.context.lines, accept_bare_lf=True)
    assert [(await heads.read()).status for _ in range(2)] == [103, 200]
    rest = connection.buffer
    while len(rest) < 5:
        rest += await stream.receive()
    assert rest == b"he\nlo"
    bench.close()


async def fails(said: bytes, *, reused: bool) -> type[Exception]:
    """What reading the heads of `said`, with an end behind it, comes to."""
    bench = Bench()
    stream, connection = bench.connection()
    connection.reused = reused
    stream.says(said)
    stream.ends()
    heads = ResponseHeads(connection, b"GET", bench.context.lines)
    problem: type[Exception] | None = None
    while problem is None:
        try:
            assert (await heads.read()).status < 200
        except (NoAnswer, ProxyError, Refused) as exc:
            problem = type(exc)
    bench.close()
    return problem


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nA:", ProxyError),
        (b"HTTP/1.1 200 OK\r\nA:\x00b\r\n\r\n", Refused),
        (b"HTTP/1.1 2", NoAnswer),
        (b"\r\n", NoAnswer),
        (b"the rest of a body", NoAnswer),
        (b"5\r\nhello\r\n0\r\n\r\n", NoAnswer),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", ProxyError),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nnonsense", Refused),
    ],
)
@trio_test(clock="autojump")
async def test_on_a_reused_connection_only_a_valid_status_line_is_an_answer(said: bytes, problem: type) -> None:
    assert await fails(said, reused=True) is problem


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"the rest of a body", Refused),
        (b"HTTP/1.1 2000\r\n\r\n", Refused),
        (b"HTTP/1.1 2", ProxyError),
        (b"\r\n", NoAnswer),
    ],
)
@trio_test(clock="autojump")
async def test_on_a_fresh_connection_nonsense_is_nonsense(said: bytes, problem: type) -> None:
    assert await fails(said, reused=False) is problem
