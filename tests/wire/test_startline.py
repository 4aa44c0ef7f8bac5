"""Request line and status line."""

import pytest

from lbproxy.wire.lines import Refused
from lbproxy.wire.startline import read_request_line, read_status_line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1", (b"GET", b"/", None, 1)),
        (b"GET /a?b HTTP/1.0", (b"GET", b"/a?b", None, 0)),
        (b"GET / HTTP/1.2", (b"GET", b"/", None, 1)),
        (b"GET / HTTP/1.9", (b"GET", b"/", None, 1)),
        (b"OPTIONS * HTTP/1.1", (b"OPTIONS", b"*", None, 1)),
        (b"get //x HTTP/1.1", (b"get", b"//x", None, 1)),
        (b"GET http://a.b:80/c?d HTTP/1.1", (b"GET", b"/c?d", b"a.b:80", 1)),
        (b"GET HTTPS://a HTTP/1.1", (b"GET", b"/", b"a", 1)),
        (b"GET http://a?b HTTP/1.1", (b"GET", b"/?b", b"a", 1)),
        (b"OPTIONS http://a HTTP/1.1", (b"OPTIONS", b"*", b"a", 1)),
        (b"OPTIONS http://a/ HTTP/1.1", (b"OPTIONS", b"/", b"a", 1)),
        (b"GET http://[::1]:8080/ HTTP/1.1", (b"GET", b"/", b"[::1]:8080", 1)),
    ],
)
def test_a_request_line_is_taken_apart(line, expected):
    assert read_request_line(line) == expected


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/2.0", 505),
        (b"PRI * HTTP/2.0", 400),
        (b"GET / HTTP/0.9", 400),
        (b"GET /", 400),
        (b"CONNECT a:1 HTTP/1.1", 501),
        (b"CONNECT a:1 HTTP/2.0", 505),
        (b"GET a:1 HTTP/1.1", 501),
        (b"GET http://u@a/ HTTP/1.1", 400),
    ],
)
def test_a_request_line_is_refused_with_the_status_that_says_why(line, status):
    with pytest.raises(Refused) as caught:
        read_request_line(line)
    assert caught.value.status == status
    assert caught.value.token == "http_request_error"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"HTTP/1.1 200 OK", (200, b"OK", 1)),
        (b"HTTP/1.0 200", (200, b"", 0)),
        (b"HTTP/1.1 404 ", (404, b"", 1)),
        (b"HTTP/1.3 999 a\tb \xe4", (999, b"a\tb \xe4", 1)),
    ],
)
def test_a_status_line_is_taken_apart(line, expected):
    assert read_status_line(line) == expected


@pytest.mark.parametrize("line", [b"HTTP/2.0 200 OK", b"HTTP/1.1 99 x", b"HTTP/1.1 200 a\x01", b""])
def test_a_bad_status_line_is_a_bad_gateway(line):
    with pytest.raises(Refused) as caught:
        read_status_line(line)
    assert (caught.value.status, caught.value.token) == (502, "http_protocol_error")


def test_a_method_has_at_most_64_bytes():
    assert read_request_line(b"M" * 64 + b" / HTTP/1.1")[0] == b"M" * 64
    with pytest.raises(Refused) as caught:
        read_request_line(b"M" * 65 + b" / HTTP/1.1")
    assert caught.value.status == 501
