"""A backend that speaks HTTP/1, on a memory stream."""

import pytest
from support.memory import GET, Bench, MemoryStream
from support.trio_test import trio_test

from lbproxy.wire.head import read_request
from lbproxy.worker.task.backend_side import Asked
from lbproxy.worker.task.http1_backend import Http1Backend

virtual = trio_test(clock="autojump", timeout_s=10_000)
CHUNKED = b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"


def side_of(bench: Bench, request: bytes) -> tuple[MemoryStream, Http1Backend, Asked]:
    stream, connection = bench.connection()
    head = read_request(request, bench.context.lines, 100)
    side = Http1Backend(connection, head, bench.context.backends, bench.context.lines, accept_bare_lf=False)
    return stream, side, Asked(head, bench.talk(), b"id", ())


@pytest.mark.parametrize("end", [True, False])
@virtual
async def test_a_chunked_body_is_framed_anew_and_ends_once(end: bool) -> None:
    bench = Bench()
    stream, side, asked = side_of(bench, CHUNKED)
    side.put_request(asked, b"hello", end=end)
    if not end:
        side.put(b"")
        side.put(b"more")
        side.put_end([b"X-Sum: 1"])
    _, _, body = bytes(stream.heard).partition(b"\r\n\r\n")
    assert body == (b"5\r\nhello\r\n0\r\n\r\n" if end else b"5\r\nhello\r\n4\r\nmore\r\n0\r\nX-Sum: 1\r\n\r\n")
    side.release(reusable=False)
    bench.close()


@virtual
async def test_a_backend_that_takes_nothing_may_still_have_answered() -> None:
    bench = Bench()
    stream, side, asked = side_of(bench, GET)
    stream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    stream.breaks()
    side.put_request(asked, b"", end=True)
    await side.flush(1.0)
    assert not side.takes
    head = await side.next_head()
    body = side.body(head)
    assert (head.status, body.feed(side.take_received()), body.done) == (200, b"hi", True)
    side.release(reusable=False)
    bench.close()


@virtual
async def test_a_connection_with_bytes_unsent_is_not_used_again() -> None:
    bench = Bench()
    stream, side, asked = side_of(bench, GET)
    stream.takes(10)
    side.put_request(asked, b"", end=True)
    assert side.pending
    side.release(reusable=True)
    assert stream.is_closed
    bench.close()
