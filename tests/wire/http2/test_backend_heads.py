import hpack
import pytest

from lbproxy.wire.head import Lines, Refused, read_request
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.http2.backend_heads import request_block, response_head
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.hpack import Fields

CLIENT = ClientFacts(b"192.0.2.1", False, b"https")


def test_a_backend_gets_the_fields_that_one_of_http1_would_get() -> None:
    raw = (
        b"POST /a?b HTTP/1.1\r\nHost: a.example\r\nCookie: a=b\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\ncontent-type: application/grpc\r\n\r\n"
    )
    block = request_block(read_request(raw, Lines(), 100), CLIENT, b"abc", EncodedLines())
    assert [tuple(pair) for pair in hpack.Decoder().decode(block)] == [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a.example"),
        (":path", "/a?b"),
        ("cookie", "a=b"),
        ("content-type", "application/grpc"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a.example"),
        ("x-request-id", "abc"),
        ("via", "1.1 lbproxy"),
        ("te", "trailers"),
    ]


def test_an_answer_becomes_a_head() -> None:
    head = response_head(((b":status", b"200"), (b"content-length", b"3"), (b"x-a", b"b")), Lines())
    assert (head.status, head.length, head.lines, head.reason) == (200, 3, [b"x-a: b"], b"OK")
    assert response_head(((b":status", b"103"), (b"link", b"</a>")), Lines()).status == 103


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"x-a", b"b"), (b":status", b"200")),
        ((b":status", b"20"),),
        ((b":status", b"101"),),
        ((b":status", b"200"), (b":status", b"200")),
        ((b":status", b"200"), (b":path", b"/")),
        ((b":status", b"200"), (b"X-A", b"b")),
        ((b":status", b"200"), (b"x-a", b"b\r\nc: d")),
        ((b":status", b"200"), (b"connection", b"close")),
        ((b":status", b"200"), (b"transfer-encoding", b"chunked")),
        ((b":status", b"200"), (b"content-length", b"x")),
        ((b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")),
    ],
)
def test_a_malformed_answer_is_refused(fields: Fields) -> None:
    with pytest.raises(Refused) as refused:
        response_head(fields, Lines())
    assert refused.value.status == 502
