"""The key of a handshake and its answer."""

from dataclasses import replace

import pytest

from lbproxy.wire.head import Lines, Refused, read_request, read_response
from lbproxy.wire.http2.websocket import accept_of, check_accept, switched

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
REQUEST = read_request(
    b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: %b\r\n\r\n" % KEY,
    Lines(),
    100,
)


def switching(*lines: bytes, protocol: bytes = b"websocket") -> bytes:
    lines = (b"HTTP/1.1 101 Switching", b"Connection: Upgrade", b"Upgrade: " + protocol, *lines, b"", b"")
    return b"\r\n".join(lines)


def test_the_answer_of_the_specification_is_taken() -> None:
    assert accept_of(KEY) == ACCEPT
    check_accept(REQUEST, read_response(switching(b"Sec-WebSocket-Accept: " + ACCEPT), Lines()))
    check_accept(replace(REQUEST, lines=[]), read_response(switching(protocol=b"else"), Lines()))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Sec-WebSocket-Accept: " + ACCEPT.lower(),),
        (b"Sec-WebSocket-Accept: " + ACCEPT, b"Sec-WebSocket-Accept: " + ACCEPT),
    ],
)
def test_any_other_is_refused(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(Refused, match="does not fit"):
        check_accept(REQUEST, read_response(switching(*lines), Lines()))


def test_the_2xx_of_an_extended_connect_stands_for_a_101_with_our_answer_to_the_key() -> None:
    raw = b"HTTP/1.1 200 \r\nsec-websocket-protocol: chat\r\nsec-websocket-accept: theirs\r\n\r\n"
    head = switched(REQUEST, read_response(raw, Lines()), b"websocket")
    assert (head.status, head.upgrade, head.length) == (101, b"websocket", None)
    assert head.lines == [b"sec-websocket-protocol: chat", b"Sec-WebSocket-Accept: " + ACCEPT]
    check_accept(REQUEST, head)
    assert switched(REQUEST, read_response(b"HTTP/1.1 200 \r\n\r\n", Lines()), b"else").lines == []
