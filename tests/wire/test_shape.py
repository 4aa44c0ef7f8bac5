"""Shapes: whatever they read, they read as head.py does, and make the bytes that headers.py makes."""

from support.proxy import get

from lbproxy.wire.head import read_request, read_response
from lbproxy.wire.headers import ClientFacts, Framing, request_to_backend, response_to_client
from lbproxy.wire.lines import Lines
from lbproxy.wire.shape import ReplyShape, RequestShape, Shapes

STRANGER = ClientFacts(b"192.0.2.1", False, b"http")
ID = b"0123456789abcdef"


def test_a_request_like_two_others_is_read_and_made_as_they_are() -> None:
    shapes = Shapes(RequestShape)
    for number in (1, 2):
        shapes.learn(get(b"/%d" % number, b"A: 50%", b"Cookie: a=%d" % number, b"Referer: /%d" % number))
    raw = get(b"/three", b"A: 50%", b"Cookie: %s", b"Referer: /2")
    found = shapes.read(raw + b"more")
    assert found is not None
    shape, values, end = found
    assert end == len(raw)
    head = read_request(raw, Lines(), 9)
    assert shape.head(values) == head
    assert shape.to_backend(values, STRANGER, ID) == request_to_backend(head, STRANGER, ID)


def test_an_answer_like_two_others_is_read_and_made_as_they_are() -> None:
    shapes = Shapes(ReplyShape)
    for number in (1, 2):
        shapes.learn(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Request-ID: %d\r\nETag: %d\r\n\r\n" % ((number,) * 3))
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 033\r\nX-Request-ID: 7\r\nETag: 9\r\n\r\n"
    found = shapes.read(raw + b"more")
    assert found is not None
    shape, values, end = found
    assert end == len(raw)
    head = read_response(raw, Lines())
    assert shape.length(values) == head.length == 33
    asked = read_request(get(b"/"), Lines(), 9)
    made = shape.to_client(values, asked, ID, Framing.LENGTH, True)
    assert made == response_to_client(head, asked, ID, Framing.LENGTH, True)
