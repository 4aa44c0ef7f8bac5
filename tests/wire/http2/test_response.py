import hpack

from lbproxy.wire.head import Lines, ResponseHead, read_response
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.response import error_block, response_block, trailers_block, tunnel_block
from lbproxy.wire.pages import ErrorPage

ENCODED = EncodedLines()


def fields(block: bytes) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in hpack.Decoder().decode(block)]


def head(*lines: str, status: str = "200 OK") -> ResponseHead:
    return read_response("\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode(), Lines())


def test_an_answer_has_the_fields_that_http1_would_send_but_for_framing() -> None:
    read = head(
        "Content-Length: 5", "Content-Type: text/plain", "Connection: X-Hop", "X-Hop: 1", "Via: 1.1 app", "X-E:"
    )
    assert fields(response_block(read, b"abc\r\nSet-Cookie: a=b", ENCODED)) == [
        (":status", "200"),
        ("content-type", "text/plain"),
        ("x-e", ""),
        ("content-length", "5"),
        ("via", "1.1 app, 1.1 lbproxy"),
        ("x-request-id", "abc"),
        ("set-cookie", "a=b"),
    ]
    chunked = fields(response_block(head("Transfer-Encoding: chunked"), b"abc", ENCODED))
    assert chunked == [(":status", "200"), ("via", "1.1 lbproxy"), ("x-request-id", "abc")]


def test_lengths_stay_where_a_length_may_be() -> None:
    for status, stays in (("304 Not Modified", True), ("204 No Content", False), ("103 Early Hints", False)):
        made = fields(response_block(head("Content-Length: 0", status=status), b"a", ENCODED))
        assert (("content-length", "0") in made) == stays


def test_a_tunnel_is_told_by_200() -> None:
    read = head(
        *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Accept: x", "Sec-WebSocket-Protocol: chat"),
        status="101 Switching Protocols",
    )
    assert fields(tunnel_block(read, b"abc", ENCODED)) == [
        (":status", "200"),
        ("sec-websocket-protocol", "chat"),
        ("via", "1.1 lbproxy"),
        ("x-request-id", "abc"),
    ]


def test_an_error_page_is_that_of_http1() -> None:
    page = ErrorPage(503, "edge", "destination_unavailable", "nobody", b"abc", retry_after_s=1, lines=b"\r\nDate: now")
    block, body = error_block(page, ENCODED)
    made = dict(fields(block))
    assert made.pop("content-length") == str(len(body))
    assert made == {
        ":status": "503",
        "content-type": "text/plain; charset=utf-8",
        "cache-control": "no-store",
        "proxy-status": "edge; error=destination_unavailable",
        "retry-after": "1",
        "x-request-id": "abc",
        "date": "now",
    }
    assert b"nobody" in body


def test_trailers() -> None:
    assert fields(trailers_block([b"grpc-status: 0", b"X-Sum: 7"], ENCODED)) == [("grpc-status", "0"), ("x-sum", "7")]
