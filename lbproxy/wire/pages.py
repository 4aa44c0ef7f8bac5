"""The answers lbproxy gives itself when an exchange fails: complete responses in the form that the client accepts.

Facts in, bytes out. Says what is wrong in one sentence; who is to blame and the details are in the log, under the
request id that the page shows.
"""

import html
import json
import re
from dataclasses import dataclass

from lbproxy.wire.grpc import status_lines

REASONS = {
    400: "Bad Request",
    404: "Not Found",
    408: "Request Timeout",
    413: "Content Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
_TYPES = {
    b"text/html": "text/html",
    b"application/xhtml+xml": "text/html",
    b"application/json": "application/json",
    b"application/problem+json": "application/json",
    b"application/*": "application/json",
    b"text/plain": "text/plain",
    b"text/*": "text/plain",
    b"*/*": "text/plain",
}
# RFC 9110, 12.4.2; anything else counts as 0.
_weight = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch
_token = re.compile(r"[A-Za-z*][-!#$%&'*+.^_`|~:/0-9A-Za-z]*").fullmatch  # sf-token, RFC 8941, 3.3.4


@dataclass(frozen=True, slots=True)
class ErrorPage:
    status: int
    proxy: str  # our name in Proxy-Status
    token: str  # RFC 9209 error type
    reason: str  # one sentence, shown to the client
    request_id: bytes = b""
    accept: bytes = b""  # the client's Accept
    head_only: bool = False  # for HEAD: the length, without the body
    close: bool = True
    retry_after_s: int | None = None
    lines: bytes = b""  # further field lines, each behind a CRLF
    minor: int = 1  # of the client: 1.0 must be told that the connection stays
    text: str = ""  # the operator's own body, as it is: HTML where it begins with "<", else plain text
    grpc_status: int | None = None  # the client speaks gRPC: it gets this status in place of a page
    pushback_ms: int | None = None  # ... and may try again after this time


def error_response(page: ErrorPage) -> bytes:
    """The complete response, head and body."""
    if page.grpc_status is not None:
        return _call_error(page, page.grpc_status)
    title = f"{page.status} {REASONS.get(page.status, 'Error')}"
    media_type = negotiate(page.accept)
    body = _body(page, title, media_type).encode()
    if page.text:
        media_type = "text/html" if page.text.lstrip().startswith("<") else "text/plain"
        body = page.text.encode("utf-8", "replace")
    lines = [
        f"HTTP/1.1 {title}",
        f"Content-Type: {media_type}; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"Proxy-Status: {_proxy_name(page.proxy)}; error={page.token}",
    ]
    if page.retry_after_s is not None:
        lines.append(f"Retry-After: {page.retry_after_s}")
    if page.request_id:
        lines.append(f"X-Request-ID: {page.request_id.decode('ascii', 'replace')}")
    if page.close:
        lines.append("Connection: close")
    elif page.minor == 0:
        lines.append("Connection: keep-alive")
    head = "\r\n".join(lines).encode("ascii", "replace") + page.lines + b"\r\n\r\n"
    return head if page.head_only else head + body


def _call_error(page: ErrorPage, code: int) -> bytes:
    """The error as gRPC wants it: 200, no body, and the status among the fields ("Trailers-Only")."""
    lines = [
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/grpc",
        *status_lines(code, page.reason, pushback_ms=page.pushback_ms),
        f"Proxy-Status: {_proxy_name(page.proxy)}; error={page.token}".encode("ascii", "replace"),
    ]
    if page.request_id:
        lines.append(b"X-Request-ID: " + page.request_id)
    return b"\r\n".join(lines) + page.lines + b"\r\n\r\n"


def negotiate(accept: bytes) -> str:
    """text/html, application/json or text/plain: what the client likes best, and of equals what it names first.

    Who accepts nothing of this, or does not say, gets plain text: an error is told in any case.
    """
    best, best_weight = "text/plain", 0.0
    for item in accept.lower().split(b","):
        media_range, *parameters = (part.strip(b" \t") for part in item.split(b";"))
        media_type = _TYPES.get(media_range)
        if media_type is None:
            continue
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition(b"=")
            if name.strip(b" \t") == b"q":
                weight = float(value) if _weight(value.strip(b" \t")) else 0.0
        if weight > best_weight:
            best, best_weight = media_type, weight
    return best


def _body(page: ErrorPage, title: str, media_type: str) -> str:
    request_id = page.request_id.decode("ascii", "replace")
    if media_type == "application/json":
        facts = {"status": page.status, "error": page.token, "reason": page.reason, "request_id": request_id}
        return json.dumps(facts) + "\n"
    if media_type == "text/html":
        reason, shown_id = html.escape(page.reason), html.escape(request_id)
        return (
            f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
            f"<h1>{title}</h1>\n<p>{reason}</p>\n<p><small>lbproxy, request {shown_id}</small></p></html>\n"
        )
    return f"{title}: {page.reason}\n" + (f"request {request_id}\n" if request_id else "")


def _proxy_name(name: str) -> str:
    """As a structured-field token where it is one, else as a string (RFC 8941)."""
    if _token(name):
        return name
    plain = "".join(char if " " <= char <= "~" else "?" for char in name)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
