"""HTTP.md as tables: what is accepted and what is refused, requests and responses.

Used by the tests of wire/ and, as bytes to send, by the end-to-end tests. `Refusal.raw` may go beyond the head.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    name: str
    raw: bytes
    status: int

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def request(*fields: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: a.example") -> bytes:
    """A request head; `host=None` leaves Host out."""
    return b"\r\n".join([start, *([host] if host is not None else []), *fields, b"\r\n"])


def response(*fields: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([start, *fields, b"\r\n"])


def _refused(status: int, name: str, *raws: bytes) -> list[Refusal]:
    return [Refusal(f"{name} {number}", raw, status) for number, raw in enumerate(raws, 1)]


def _starts(status: int, name: str, *starts: bytes) -> list[Refusal]:
    return _refused(status, name, *(request(start=start) for start in starts))


def _hosts(name: str, *values: bytes) -> list[Refusal]:
    return _refused(400, name, *(request(host=b"Host: " + value) for value in values))


def _fields(status: int, name: str, *fields: bytes) -> list[Refusal]:
    return _refused(status, name, *(request(*field.split(b"\r\n"), start=b"POST / HTTP/1.1") for field in fields))


# What is wrong with a field line on either side: (name, line).
BAD_FIELD_LINES = [
    ("bare LF", b"A: b\nC: d"),
    ("bare CR", b"A: b\rC: d"),
    ("CR CR LF", b"A: b\r"),
    ("obs-fold SP", b"A: b\r\n folded"),
    ("obs-fold HTAB", b"A: b\r\n\tfolded"),
    ("obs-fold only blanks", b"A: b\r\n "),
    ("NUL in a value", b"A: b\x00c"),
    ("control byte in a value", b"A: b\x01c"),
    ("vertical tab in a value", b"A: b\x0bc"),
    ("form feed in a value", b"A: \x0cb"),
    ("ESC in a value", b"A: b\x1bc"),
    ("DEL in a value", b"A: b\x7fc"),
    ("NUL in a name", b"A\x00: b"),
    ("blank in a name", b"A B: c"),
    ("bracket in a name", b"A(): c"),
    ("slash in a name", b"A/B: c"),
    ("obs-text in a name", b"A\xe4: c"),
    ("quote in a name", b'"A": c'),
    ("empty name", b": c"),
    ("only a colon", b":"),
    ("blank before the colon", b"A : c"),
    ("HTAB before the colon", b"A\t: c"),
    ("no colon", b"Afield"),
    ("blank before the name", b" A: c"),
]

BAD_LENGTHS = [
    b"+3", b"-3", b"0x3", b"3a", b"", b"3 3", b"3.0", b"1e3", b"3;", b",", b"3,", b",3", b"3,,3", b"3, 4", b"3,03",
    b'"3"', b"99999999999999999999", b"00000000000000000003", b"\xb2", b"3_0", b"0x", b"- 3", b"3 , 4",
]  # fmt: skip

BAD_CODINGS = [
    b"identity", b"chunked, chunked", b"chunked,chunked", b"gzip, chunked", b"chunked, gzip", b"identity, chunked",
    b"chunked, identity", b"xchunked", b"chunkedx", b"x-chunked", b'"chunked"', b"'chunked'", b"chunked;q=1",
    b"chunked; a=b", b"", b",chunked", b"chunked,", b"chunked chunked", b"chun ked", b"gzip;q=1", b"chunked;",
    b"\xffchunked",
]  # fmt: skip

REFUSED_REQUESTS: list[Refusal] = [
    *_refused(
        400,
        "line ends",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\r",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\rA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\nHost: a\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    *(refusal for name, line in BAD_FIELD_LINES for refusal in _refused(400, name, request(line))),
    *_refused(400, "field line first", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n\tA: b\r\nHost: a\r\n\r\n"),
    *_refused(400, "more than one CRLF first", b"\r\n\r\n" + request(), b"\r\n\r\n\r\n" + request()),
    *_starts(
        400,
        "request line",
        b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET\t/ HTTP/1.1",
        b"GET /\tHTTP/1.1", b"GET / a HTTP/1.1", b"GET / HTTP/1.1 a", b"GET HTTP/1.1", b"/ HTTP/1.1", b"GET /", b"GET",
        b"GET / ", b" / HTTP/1.1", b"GET  HTTP/1.1", b"G(T / HTTP/1.1", b"G\xc4T / HTTP/1.1", b"GE\x00T / HTTP/1.1",
        b"GET: / HTTP/1.1", b"GET\x0b/ HTTP/1.1",
    ),
    *_starts(
        400,
        "version",
        b"GET / http/1.1", b"GET / Http/1.1", b"GET / HTP/1.1", b"GET / HTTP 1.1", b"GET / HTTP/1", b"GET / HTTP/1.",
        b"GET / HTTP/.1", b"GET / HTTP/1.10", b"GET / HTTP/1.01", b"GET / HTTP/01.1", b"GET / HTTP/10.1",
        b"GET / HTTP/1,1",
        b"GET / HTTP/0.9", b"GET / HTTP/1.1x", b"GET / HTTP/x.y", b"GET / HTTPS/1.1", b"GET / HTTP/+1.1",
        b"GET / HTTP/ 1.1",
        b"GET / HTTP/1 .1", b"GET / HTTP/2", b"GET / HTTP/\xb9.1",
    ),
    *_starts(505, "major version", b"GET / HTTP/2.0", b"GET / HTTP/3.0", b"GET / HTTP/9.9", b"GET / HTTP/2.1"),
    *_starts(
        400,
        "target",
        b"GET /\x01 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /# HTTP/1.1", b"GET /a#b HTTP/1.1",
        b"GET /\xe4 HTTP/1.1", b"GET * HTTP/1.1", b"POST * HTTP/1.1", b"OPTIONS ** HTTP/1.1", b"GET a HTTP/1.1",
        b"GET a/b HTTP/1.1", b"GET ?a HTTP/1.1", b"GET http:// HTTP/1.1", b"GET http:///a HTTP/1.1",
        b"GET http:/a HTTP/1.1",
        b"GET http://u@a/ HTTP/1.1", b"GET http://u:p@a/ HTTP/1.1", b"GET http://a b/ HTTP/1.1",
        b"GET http://a:x/ HTTP/1.1",
        b"GET http://a:99999/ HTTP/1.1", b"GET http://a/#b HTTP/1.1", b"GET ftp://a/ HTTP/1.1",
        b"GET http://a,b/ HTTP/1.1",
        b"GET http://:80/ HTTP/1.1", b"GET ://a/ HTTP/1.1", b"GET \\ HTTP/1.1", b"OPTIONS *a HTTP/1.1",
        b"GET mailto:a@b HTTP/1.1",
    ),
    *_starts(501, "a long method", b"M" * 65 + b" / HTTP/1.1", b"M" * 9000 + b" /a HTTP/1.1"),
    *_starts(501, "CONNECT", b"CONNECT a:443 HTTP/1.1", b"CONNECT / HTTP/1.1", b"CONNECT a:443 HTTP/1.0",
    b"GET a:80 HTTP/1.1",
             b"GET [::1]:80 HTTP/1.1"),
    *_refused(400, "no Host", request(host=None), request(b"A: b", host=None),
    request(host=None, start=b"GET http://a/ HTTP/1.1")),
    *_refused(
        400,
        "two Hosts",
        request(b"Host: a.example"), request(b"Host: b"), request(b"host: a.example"), request(b"Host:"),
        request(b"Host: b", start=b"GET / HTTP/1.0"), request(b"Host: b", start=b"GET http://a/ HTTP/1.1"),
    ),
    *_hosts(
        "Host value",
        b"a/", b"a/b", b"http://a", b"u@a", b"u:p@a", b"a b", b"a\tb", b"a,b", b"a, b", b"a:x", b"a:-1", b"a:99999",
        b"a:65536",
        b"a:", b"a:80:80", b"a:8 0", b"a:+80", b"a:0x50", b":80", b"[::1", b"::1", b"[::1]x", b"[::1]:", b"[]", b"[a]",
        b"[::1::]",
        b"[1.2.3.4]", b"a?b", b"a#b", b"a\\b", b"<a>", b'"a"', b"a\xe4", b"a:123456", b"{a}", b"a|b",
        b"[fe80::1%25eth0]", b"a:0",
    ),
    *_fields(
        400,
        "length and coding",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked", b"content-length: 3\r\nTRANSFER-ENCODING: gzip",
        b"Transfer-Encoding: identity\r\nContent-Length: 3",
    ),
    *_refused(
        400,
        "coding in 1.0",
        request(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"),
        request(b"Transfer-Encoding: gzip", start=b"POST / HTTP/1.0"),
        request(b"Content-Length: 3", b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"),
    ),
    *_fields(400, "length", *(b"Content-Length: " + value for value in BAD_LENGTHS)),
    *_fields(
        400,
        "two lengths",
        b"Content-Length: 3\r\nContent-Length: 4", b"Content-Length: 3\r\nContent-Length: 03",
        b"Content-Length: 3\r\nContent-Length: 3, 4",
        b"Content-Length: 3\r\nContent-Length:", b"Content-Length: 3, 3\r\nContent-Length: 4",
    ),
    *_fields(400, "coding", *(b"Transfer-Encoding: " + value for value in BAD_CODINGS)),
    *_fields(
        400,
        "two codings",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding:",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: gzip",
    ),
    *_fields(501, "unknown coding", b"Transfer-Encoding: gzip", b"Transfer-Encoding: br", b"Transfer-Encoding: GZip",
    b"Transfer-Encoding: foo"),
    *_fields(417, "expectation", b"Expect: 200-ok", b"Expect: 100-continue, a", b"Expect: a=b",
    b"Expect: 100-continue\r\nExpect: a"),
    *_refused(
        400,
        "another protocol",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x80\x2e\x01\x00\x02", b"SSH-2.0-OpenSSH_9.6\r\n",
        b"EHLO example.org\r\n",
        b"HELO a\r\nMAIL FROM:<a@b>\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\x00\x00\x00\x17\xffSMB", b"\x03\x00\x00\x13\x0e\xe0", b"{}\r\n\r\n", b"<a/>\r\n\r\n",
    ),
]  # fmt: skip

# Heads that are forwarded, over every row that says "accepted".
ACCEPTED_REQUESTS: list[bytes] = [
    request(),
    request(start=b"GET / HTTP/1.0", host=None),
    request(start=b"GET / HTTP/1.0"),
    b"\r\n" + request(),
    request(b"A: \xe4\xf6\xff", b"B:\t b c\t ", b"C:", b"D:   ", b"E:e", b"!#$%&'*+-.^_`|~: x"),
    request(start=b"GET / HTTP/1.2"),
    request(start=b"GET / HTTP/1.9"),
    request(start=b'GET /a?b=c&d=%zz\\|{}^`"<> HTTP/1.1'),
    request(start=b"GET //double HTTP/1.1"),
    request(start=b"GET http://b.example/path?q HTTP/1.1"),
    request(start=b"GET HTTP://b.example:8080 HTTP/1.1"),
    request(start=b"GET https://[::1]:80?q HTTP/1.1"),
    request(start=b"OPTIONS http://b.example HTTP/1.1"),
    request(start=b"OPTIONS http://b.example/ HTTP/1.1"),
    request(start=b"OPTIONS * HTTP/1.1"),
    request(start=b"BREW /pot HTTP/1.1"),
    request(start=b"get / HTTP/1.1"),
    request(start=b"TRACE / HTTP/1.1"),
    *(
        request(host=b"Host: " + host)
        for host in (b"a:80", b"[::1]", b"[2001:db8::1]:8080", b"1.2.3.4", b"a_b", b"A%20", b"")
    ),
    request(b"Content-Length: 3", start=b"POST / HTTP/1.1"),
    request(b"Content-Length: 3, 3", b"content-length:3", start=b"POST / HTTP/1.1"),
    request(b"Content-Length: 9999999999999999999", start=b"POST / HTTP/1.1"),
    request(b"Content-Length: 0", start=b"POST / HTTP/1.0"),
    request(b"Content-Length: 0007", start=b"POST / HTTP/1.1"),
    request(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1"),
    request(b"transfer-encoding:\t CHUNKed \t", start=b"PUT / HTTP/1.1"),
    request(b"Content-Length: 3"),
    request(b"Content-Length: 3", start=b"DELETE / HTTP/1.1"),
    request(b"Transfer-Encoding: chunked", start=b"HEAD / HTTP/1.1"),
    request(b"Expect: 100-Continue", b"Content-Length: 3", start=b"PUT / HTTP/1.1"),
    request(b"Expect: 100-continue", b"Content-Length: 3", start=b"PUT / HTTP/1.0"),
    request(b"Connection: close, X-Foo", b"X-Foo: 1", b"X-Bar: 2"),
    request(b"Connection: Keep-Alive", start=b"GET / HTTP/1.0"),
    request(b"Connection: keep-alive, close"),
    request(b"Connection: , ,close,"),
    request(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"),
    request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"),
    request(b"TE: trailers, deflate;q=0.5", b"Trailer: X-Sum"),
    request(b"X-Forwarded-For: 1.2.3.4", b"X_Forwarded_For: 5.6.7.8", b"Via: 1.0 fred", b"Forwarded: for=1.2.3.4"),
]

REFUSED_RESPONSES: list[Refusal] = [
    *(refusal for name, line in BAD_FIELD_LINES for refusal in _refused(502, name, response(line))),
    *_refused(
        502,
        "status line",
        *(
            response(start=start)
            for start in (
                b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20", b"HTTP/1.1 2000", b"HTTP/1.1 20x OK", b"HTTP/1.1  200 OK",
                b"HTTP/1.1 200OK",
                b"http/1.1 200 OK", b"HTTP/2.0 200 OK", b"HTTP/2 200", b"HTTP/0.9 200 OK", b"HTTP/1.10 200 OK",
                b"HTTP/1.1 099 no",
                b"HTTP/1.1 000 no", b"HTTP/1.1 -20 no", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200 O\x00K",
                b"HTTP/1.1 200 O\x7fK", b"200 OK",
                b"HTTP/1.1 200 O\nK", b" HTTP/1.1 200 OK", b"ICY 200 OK",
            )
        ),
    ),
    *_refused(502, "line ends", b"HTTP/1.1 200 OK\nA: b\n\n", b"HTTP/1.1 200 OK\r\nA: b\n\n",
    b"HTTP/1.1 200 OK\r\r\n\r\n"),
    *_refused(502, "length", *(response(b"Content-Length: " + value) for value in BAD_LENGTHS)),
    *_refused(502, "two lengths", response(b"Content-Length: 3", b"Content-Length: 4")),
    *_refused(502, "coding", *(response(b"Transfer-Encoding: " + value) for value in (*BAD_CODINGS, b"gzip"))),
    *_refused(
        502,
        "length and coding",
        response(b"Content-Length: 3", b"Transfer-Encoding: chunked"), response(b"Transfer-Encoding: chunked",
        b"Content-Length: 3"),
    ),
    *_refused(502, "two codings", response(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    *_refused(502, "coding in 1.0", response(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK")),
    *_refused(502, "another protocol", b"\x15\x03\x01\x00\x02\x02", b"SSH-2.0-x\r\n\r\n", b"+OK\r\n\r\n",
    b"<html></html>\r\n\r\n"),
]  # fmt: skip

ACCEPTED_RESPONSES: list[bytes] = [
    response(),
    response(start=b"HTTP/1.1 200"),
    response(start=b"HTTP/1.1 200 "),
    response(start=b"HTTP/1.0 200 OK"),
    response(start=b"HTTP/1.2 200 OK"),
    response(
        b"A: \xe4", b"B:", b"C:  c\t", b"Set-Cookie: a=b", b"Set-Cookie: c=d", start=b"HTTP/1.1 404 nicht \xe4 da"
    ),
    response(b"Content-Length: 3"),
    response(b"Content-Length: 3", b"Content-Length: 3"),
    response(b"Content-Length: 3, 3"),
    response(b"Transfer-Encoding: Chunked"),
    response(b"Content-Length: 5", start=b"HTTP/1.1 204 No Content"),
    response(b"Transfer-Encoding: chunked", start=b"HTTP/1.1 204 No Content"),
    response(b"Content-Length: 7", start=b"HTTP/1.1 103 Early Hints"),
    response(b"Transfer-Encoding: chunked", start=b"HTTP/1.1 103 Early Hints"),
    response(b"Content-Length: 5", start=b"HTTP/1.1 304 Not Modified"),
    response(b"Connection: close"),
    response(b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"Content-Length: 0", start=b"HTTP/1.0 200 OK"),
    response(start=b"HTTP/1.1 100 Continue"),
    response(b"Link: </a>; rel=preload", start=b"HTTP/1.1 103 Early Hints"),
    response(b"Upgrade: websocket", b"Connection: Upgrade", start=b"HTTP/1.1 101 Switching Protocols"),
    response(b"Content-Type: text/event-stream; charset=utf-8"),
    response(start=b"HTTP/1.1 999 odd"),
]
