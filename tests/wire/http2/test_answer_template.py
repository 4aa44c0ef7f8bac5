"""A block that a template makes says what the block of the whole head says."""

import pytest
from hpack import Decoder

from lbproxy.wire.head import Lines, read_response
from lbproxy.wire.head_template import HeadTemplates, ResponseTemplate
from lbproxy.wire.http2.answer_template import AnswerTemplate
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.response import fixed_block

START = b"HTTP/1.1 200 OK\r\n"


def page(number: int, *more: bytes) -> bytes:
    lines = [
        b"Server: x",
        b"Set-Cookie: sid=%d" % number,
        b"Date: at %d" % number,
        b"Content-Length: %d" % number,
        *more,
    ]
    return START + b"\r\n".join(lines) + b"\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        page,
        lambda number: page(number, b"Via: 1.0 other", b"X-Long: " + b"%d" % number * 60),
        lambda number: START + b"A: %d\r\nB: same\r\nContent-Length: 3\r\n\r\n" % number,
        lambda number: START + b"Transfer-Encoding: chunked\r\nETag: %d\r\n\r\n" % number,
        lambda number: b"HTTP/1.1 304 Not Modified\r\nETag: %d\r\nContent-Length: %d\r\n\r\n" % (number, number),
        lambda number: b"HTTP/1.1 204 No Content\r\nETag: %d\r\n\r\n" % number,
    ],
)
def test_a_template_says_the_same(head: object) -> None:
    assert callable(head)
    templates = HeadTemplates(ResponseTemplate)
    templates.learn(head(10))
    templates.learn(head(11))
    encoded = EncodedLines()
    for number in (12, 4567, 1):
        match = templates.read(head(number))
        assert match is not None
        template, values, _ = match
        block = AnswerTemplate(template, encoded).block(values)
        due = fixed_block(read_response(head(number), Lines()), encoded)
        assert Decoder().decode(block, raw=True) == Decoder().decode(due, raw=True)
