"""The answers lbproxy gives itself."""

import json
from dataclasses import replace

import pytest

from lbproxy.wire.body import response_body
from lbproxy.wire.head import Lines, read_response, response_head_end
from lbproxy.wire.http1 import confirm_response
from lbproxy.wire.pages import REASONS, ErrorPage, error_response, negotiate

PAGE = ErrorPage(
    503,
    proxy="edge-1",
    token="destination_unavailable",
    reason="no backend <is> ready",
    request_id=b"abc",
    retry_after_s=5,
)


def parts(page: ErrorPage) -> tuple[list[str], str]:
    raw = error_response(page)
    end = response_head_end(raw, 0)
    head = read_response(raw[:end], Lines())
    confirm_response(raw[:end], head, b"GET")
    body = response_body(head, b"HEAD" if page.head_only else b"GET")
    text = body.feed(raw[end:])
    assert body.done
    assert body.rest == b""
    return raw[: end - 4].decode().split("\r\n"), text.decode()


def test_plain_text_says_it_in_two_lines():
    lines, text = parts(PAGE)
    assert lines == [
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Length: 59",
        "Cache-Control: no-store",
        "Proxy-Status: edge-1; error=destination_unavailable",
        "Retry-After: 5",
        "X-Request-ID: abc",
        "Connection: close",
    ]
    assert text == "503 Service Unavailable: no backend <is> ready\nrequest abc\n"


def test_html_is_escaped():
    lines, text = parts(replace(PAGE, accept=b"text/html"))
    assert "Content-Type: text/html; charset=utf-8" in lines
    assert "no backend &lt;is&gt; ready" in text
    assert "<is>" not in text


def test_json_holds_the_facts():
    lines, text = parts(replace(PAGE, accept=b"application/json"))
    assert "Content-Type: application/json; charset=utf-8" in lines
    assert json.loads(text) == {
        "status": 503,
        "error": "destination_unavailable",
        "reason": "no backend <is> ready",
        "request_id": "abc",
    }


def test_an_answer_to_head_has_the_length_and_no_body():
    lines, text = parts(replace(PAGE, head_only=True))
    assert text == ""
    assert lines == parts(PAGE)[0]


@pytest.mark.parametrize(
    ("close", "minor", "connection"),
    [
        (True, 1, ["Connection: close"]),
        (True, 0, ["Connection: close"]),
        (False, 1, []),
        (False, 0, ["Connection: keep-alive"]),
    ],
)
def test_the_connection_is_named_as_the_version_needs(close, minor, connection):
    lines, _ = parts(replace(PAGE, close=close, minor=minor))
    assert [line for line in lines if line.startswith("Connection")] == connection


def test_what_is_not_known_is_left_out():
    lines, text = parts(ErrorPage(400, proxy="a", token="http_request_error", reason="why"))
    assert not [line for line in lines if line.startswith(("Retry-After", "X-Request-ID"))]
    assert text == "400 Bad Request: why\n"


@pytest.mark.parametrize("status", [*REASONS, 418])
@pytest.mark.parametrize("accept", [b"", b"text/html", b"application/json"])
def test_every_page_is_a_response_that_we_would_accept(status, accept):
    lines, _ = parts(replace(PAGE, status=status, accept=accept))
    assert lines[0].startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("edge-1", "edge-1"),
        ("web01.example.org", "web01.example.org"),
        ("1st", '"1st"'),
        ("a b", '"a b"'),
        ('a"\\b', '"a\\"\\\\b"'),
        ("\xe4\r\nX: y", '"???X: y"'),
        ("", '""'),
    ],
)
def test_our_name_is_a_token_or_a_string(name, shown):
    lines, _ = parts(replace(PAGE, proxy=name))
    assert f"Proxy-Status: {shown}; error=destination_unavailable" in lines


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (b"", "text/plain"),
        (b"*/*", "text/plain"),
        (b"image/png", "text/plain"),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", "text/html"),
        (b"application/json, text/plain, */*", "application/json"),
        (b"application/problem+json", "application/json"),
        (b"text/html;q=0.5, application/json;q=0.9", "application/json"),
        (b"text/html;q=0, application/json;q=0.1", "application/json"),
        (b"TEXT/HTML ; level=1 ; Q=0.7, */* ; q=0.1", "text/html"),
        (b"text/*;q=0.3, application/*", "application/json"),
        (b"text/html;q=nonsense, text/plain;q=0.1", "text/plain"),
        (b"text/html;q=2", "text/plain"),
        (b",;,=;q=;\xff", "text/plain"),
    ],
)
def test_the_type_is_what_the_client_likes_best(accept, media_type):
    assert negotiate(accept) == media_type


def test_a_grpc_client_gets_the_status_in_place_of_a_page():
    page = replace(PAGE, status=503, reason="größer: 100 %", lines=b"\r\nDate: now", grpc_status=14)
    assert error_response(page) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 14\r\n"
        b"grpc-message: gr%C3%B6%C3%9Fer: 100 %25\r\n"
        b"Proxy-Status: " + PAGE.proxy.encode() + b"; error=" + PAGE.token.encode() + b"\r\n"
        b"X-Request-ID: " + PAGE.request_id + b"\r\nDate: now\r\n\r\n"
    )
