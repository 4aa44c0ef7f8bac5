"""A stream as the client of an exchange: its body, its windows, and the end of either side."""

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.model import ListenerView
from lbproxy.wire.head import Lines, Refused, RequestHead, read_request
from lbproxy.worker.http2.stream import StreamClient
from lbproxy.worker.reply import ClientGone


class Carrier:
    view: ListenerView

    def __init__(self) -> None:
        self.now = 0.0
        self.left = 0
        self.credited = 0
        self.resets: list[int] = []

    def pending(self, stream_id: int) -> int:
        return self.left

    def waiting(self, stream_id: int) -> int:
        return self.left

    def credit(self, stream_id: int, size: int) -> None:
        self.credited += size

    def reset(self, stream_id: int, code: int) -> None:
        self.resets.append(code)


def head(*fields: bytes) -> RequestHead:
    return read_request(b"\r\n".join([b"POST / HTTP/1.1", b"Host: a", *fields, b"", b""]), Lines(), 100)


CHUNKED = head(b"Transfer-Encoding: chunked")


@pytest.fixture
def carrier() -> Carrier:
    return Carrier()


@pytest.fixture
def stream(carrier: Carrier) -> StreamClient:
    return StreamClient(carrier, 1, ended=False)  # type: ignore[arg-type]


def test_the_window_opens_as_the_body_is_taken(carrier: Carrier, stream: StreamClient) -> None:
    body = stream.body_of(CHUNKED, 0)
    stream.received(b"abc", end=False)
    assert (carrier.credited, body.done) == (0, False)
    assert body.feed(bytes(stream.buffer)) == b"abc"
    assert carrier.credited == 3
    stream.buffer.clear()
    stream.end([b"X: 1"])
    assert (body.done, body.trailers) == (True, [b"X: 1"])


def test_an_end_that_is_here_with_the_last_bytes_ends_the_body_when_they_are_taken(stream: StreamClient) -> None:
    body = stream.body_of(CHUNKED, 0)
    stream.received(b"abc", end=True)
    assert not body.done
    assert body.feed(b"abc") == b"abc"
    assert body.done


def test_a_body_over_the_limit_is_refused_by_its_length_or_when_it_comes(stream: StreamClient) -> None:
    with pytest.raises(Refused):
        stream.body_of(head(b"Content-Length: 11"), 10)
    body = stream.body_of(CHUNKED, 10)
    body.feed(b"x" * 10)
    with pytest.raises(Refused):
        body.feed(b"x")


@trio_test(clock="autojump")
async def test_who_waits_is_told_of_data_of_the_end_and_of_a_client_that_left(stream: StreamClient) -> None:
    left: list[bool] = []
    stream.on_left = lambda: left.append(True)
    async with trio.open_nursery() as nursery:

        async def gone() -> None:
            with pytest.raises(ClientGone):
                await stream.watch()

        nursery.start_soon(gone)
        await trio.sleep(1)
        stream.received(b"a", end=False)
        assert await stream.more()
        stream.buffer.clear()
        await trio.sleep(1)
        stream.leave("reset")
    assert not await stream.more()
    assert left == [True]
    with pytest.raises(ClientGone):
        stream.send_data(b"x", end=True)


@trio_test(clock="autojump")
async def test_what_is_pending_is_waited_for(carrier: Carrier, stream: StreamClient) -> None:
    carrier.left = 10
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.wait_taken, 10)
        await trio.sleep(1)
        stream.rouse()
        await trio.sleep(1)
        carrier.left = 9
        stream.rouse()


def test_a_reset_of_ours_is_sent_once(carrier: Carrier, stream: StreamClient) -> None:
    stream.reset(2)
    stream.reset(2)
    assert carrier.resets == [2]
