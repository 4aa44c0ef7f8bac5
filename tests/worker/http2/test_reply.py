"""An answer on a stream: heads, data and trailers become the fewest frames, and a cut looks like one."""

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.wire.head import Lines, ResponseHead, read_request
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.errors import INTERNAL_ERROR
from lbproxy.wire.http2.hpack import Decoder
from lbproxy.wire.pages import ErrorPage
from lbproxy.worker.http2.reply import Http2Reply
from lbproxy.worker.reply import ClientGone

REQUEST = read_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Lines(), 100)
HEAD = ResponseHead(200, b"OK", 1, True, None, True, [b"A: 1"], {})


class Stream:
    def __init__(self) -> None:
        self.encoded_lines = EncodedLines()
        self.pending = self.waiting = 0
        self.frames: list[tuple[object, ...]] = []

    def send_head(self, block: bytes, *, end: bool) -> None:
        fields = Decoder().decode(block)
        self.frames.append(("HEADERS", dict(fields).get(b":status", fields), end))

    def send_data(self, payload: bytes, *, end: bool) -> None:
        self.frames.append(("DATA", payload, end))

    def reset(self, code: int) -> None:
        self.frames.append(("RST_STREAM", code))

    async def wait_taken(self, pending: int) -> None:
        await trio.sleep_forever()


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def reply(stream: Stream) -> Http2Reply:
    return Http2Reply(stream, REQUEST)


def test_a_short_answer_is_two_frames_and_an_empty_one_is_one(stream: Stream, reply: Http2Reply) -> None:
    reply.head(HEAD, b"id", keep=True)
    assert not reply.begun
    reply.data(b"he")
    reply.data(b"llo")
    reply.end(())
    assert stream.frames == [("HEADERS", b"200", False), ("DATA", b"hello", True)]
    assert (reply.begun, reply.ended) == (True, True)
    empty = Http2Reply(stream, REQUEST)
    empty.head(HEAD, b"id", keep=True)
    empty.end(())
    assert stream.frames[2:] == [("HEADERS", b"200", True)]


def test_interim_heads_go_at_once_and_trailers_end_the_stream(stream: Stream, reply: Http2Reply) -> None:
    reply.interim(ResponseHead(103, b"", 1, True, None, False, [], {}), b"id")
    reply.head(HEAD, b"id", keep=True)
    reply.push()
    reply.data(b"x")
    reply.push()
    reply.end([b"X-Sum: 1"])
    assert stream.frames == [
        ("HEADERS", b"103", False),
        ("HEADERS", b"200", False),
        ("DATA", b"x", False),
        ("HEADERS", ((b"x-sum", b"1"),), True),
    ]


def test_an_error_takes_the_place_of_what_has_not_gone_out(stream: Stream, reply: Http2Reply) -> None:
    reply.head(HEAD, b"id", keep=True)
    reply.data(b"half")
    size = reply.error(ErrorPage(502, "edge", "connection_terminated", "it broke off"))
    (head, body) = stream.frames
    assert head == ("HEADERS", b"502", False)
    assert (len(body[1]), body[2]) == (size, True)  # type: ignore[arg-type]


def test_a_cut_is_a_reset(stream: Stream, reply: Http2Reply) -> None:
    reply.head(HEAD, b"id", keep=True)
    reply.push()
    reply.cut()
    assert stream.frames[-1] == ("RST_STREAM", INTERNAL_ERROR)


@trio_test(clock="autojump")
async def test_a_client_that_takes_nothing_is_given_up(stream: Stream, reply: Http2Reply) -> None:
    await reply.flush(5.0)
    stream.pending = 10
    with pytest.raises(ClientGone):
        await reply.flush(5.0)
    assert trio.current_time() >= 5.0
