"""The bytes of an answer for each framing, and what a client that is gone means; heads are tested in tests/wire."""

import pytest
from support.memory import MemoryStream
from support.trio_test import trio_test

from lbproxy.wire.head import Lines, read_request, read_response
from lbproxy.wire.pages import ErrorPage
from lbproxy.worker.reply import ClientGone
from lbproxy.worker.task.http1_reply import Http1Reply

PLAIN = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
TRAILERS = b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n"
SIZED, CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
)


def reply(request: bytes = PLAIN) -> tuple[Http1Reply, MemoryStream]:
    stream = MemoryStream()
    return Http1Reply(stream, read_request(request, Lines(), 100)), stream


@pytest.mark.parametrize(
    ("request_", "response", "body"),
    [
        (PLAIN, SIZED, b"abcd"),
        (PLAIN, CHUNKED, b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"),
        (TRAILERS, CHUNKED, b"2\r\nab\r\n2\r\ncd\r\n0\r\nX-Sum: 1\r\n\r\n"),
        (OLD, CHUNKED, b"abcd"),
    ],
)
@trio_test(clock="autojump")
async def test_a_body_is_framed_as_the_client_can_read_it(request_: bytes, response: bytes, body: bytes) -> None:
    answer, stream = reply(request_)
    answer.head(read_response(response, Lines()), b"id", keep=True)
    assert not answer.begun
    answer.data(b"ab")
    answer.data(b"")
    answer.data(b"cd")
    answer.end([b"X-Sum: 1"])
    assert answer.begun
    head, _, sent = bytes(stream.heard).partition(b"\r\n\r\n")
    assert sent == body
    assert b"X-Request-ID: id" in head


@trio_test(clock="autojump")
async def test_only_an_answer_that_ends_with_the_connection_has_to_be_reset_to_be_cut() -> None:
    for request, is_reset in ((PLAIN, False), (OLD, True)):
        answer, stream = reply(request)
        head = read_response(CHUNKED, Lines())
        assert answer.can_keep(head) != is_reset
        answer.head(head, b"id", keep=False)
        answer.data(b"ab")
        answer.push()
        answer.cut()
        assert stream.is_reset == is_reset


@trio_test(clock="autojump")
async def test_a_client_of_version_1_0_gets_no_interim_answer() -> None:
    for request, sent in ((PLAIN, True), (OLD, False)):
        answer, stream = reply(request)
        answer.interim(read_response(b"HTTP/1.1 103 Early Hints\r\n\r\n", Lines()), b"id")
        assert bool(stream.heard) == sent
        assert not answer.begun


@trio_test(clock="autojump")
async def test_an_error_tells_the_size_of_its_body() -> None:
    answer, stream = reply()
    size = answer.error(ErrorPage(502, "edge", "connection_terminated", "it broke off"))
    assert answer.begun
    assert len(bytes(stream.heard).partition(b"\r\n\r\n")[2]) == size > 0


@trio_test(clock="autojump")
async def test_a_client_that_takes_nothing_any_more_is_gone() -> None:
    answer, stream = reply()
    stream.breaks()
    answer.head(read_response(SIZED, Lines()), b"id", keep=True)
    with pytest.raises(ClientGone):
        answer.push()
