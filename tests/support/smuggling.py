"""Requests over HTTP/2 that would be something else, or two, when they are written down as HTTP/1.

REFUSED has what is malformed: the stream is reset, or answered with a status of 4xx or 5xx, and nothing reaches a
backend. PASSED has what is merely strange, with what a backend must see of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from support.raw_http2 import END_HEADERS, END_STREAM, HEADERS, Field, block, data, frame, get, headers, post

INJECTED = b"GET /injected HTTP/1.1\r\nHost: evil\r\n\r\n"
CHUNKED = b"0\r\n\r\n" + INJECTED
LINE = b"x\r\ninjected: yes"


@dataclass(frozen=True, slots=True)
class Passed:
    """What the backend must see. `fields`: with these values, and no others of their names."""

    sent: bytes
    target: bytes = b"/"
    method: bytes = b"GET"
    authority: bytes = b"a.example"
    body: bytes = b""
    fields: dict[bytes, list[bytes]] = field(default_factory=dict)
    trailers: tuple[Field, ...] = ()


def pseudo(**changes: bytes | None) -> list[Field]:
    """A GET whose pseudo-fields are changed; None: the field is left out."""
    values = {"method": b"GET", "scheme": b"http", "authority": b"a.example", "path": b"/", **changes}
    return [(b":" + name.encode(), value) for name, value in values.items() if value is not None]


def upload(fields: Sequence[Field], *parts: bytes, trailers: Sequence[Field] = ()) -> bytes:
    """A POST with these fields, its DATA and trailers."""
    sent = headers(1, post(b"/", *fields), end=False)
    for number, part in enumerate(parts):
        sent += data(1, part, end=number == len(parts) - 1 and not trailers)
    return sent + (frame(HEADERS, END_HEADERS | END_STREAM, 1, block(trailers)) if trailers else b"")


def _length(*values: bytes) -> list[Field]:
    return [(b"content-length", value) for value in values]


def _with(name: bytes, value: bytes = b"x") -> bytes:
    return headers(1, get(b"/", (name, value)))


REFUSED: dict[str, bytes] = {
    # H2.CL
    "a length of 0 before DATA": upload(_length(b"0"), INJECTED),
    "a length that is too small": upload(_length(b"3"), INJECTED),
    "a length that is too large": upload(_length(b"50"), INJECTED),
    "a length that is too large, in parts": upload(_length(b"50"), b"a", b"b"),
    "a length and no DATA": headers(1, post(b"/", *_length(b"5"))),
    "a length, trailers and no DATA": upload(_length(b"5"), trailers=[(b"a", b"b")]),
    "two lengths": upload(_length(b"4", b"5"), b"abcd"),
    "a length twice": upload(_length(b"4", b"4"), b"abcd"),
    "a list of lengths": upload(_length(b"4, 4"), b"abcd"),
    "a length with a line behind it": upload(_length(b"4\r\nTransfer-Encoding: chunked"), b"abcd"),
    **{
        f"the length {value!r}": upload(_length(value), b"abcd")
        for value in (b"", b"+4", b"-4", b"0x4", b"4 ", b" 4", b"4a", b"4.0", b"\xb2", b"9" * 20, b"4\0", b"4;a")
    },
    # H2.TE
    "transfer-encoding": upload([(b"transfer-encoding", b"chunked")], CHUNKED),
    "transfer-encoding, without a body": _with(b"transfer-encoding", b"chunked"),
    "transfer-encoding: identity": _with(b"transfer-encoding", b"identity"),
    "Transfer-Encoding": _with(b"Transfer-Encoding", b"chunked"),
    "transfer-encoding with a blank": _with(b"transfer-encoding ", b"chunked"),
    "transfer-encoding in a value": _with(b"x", b"y\r\ntransfer-encoding: chunked"),
    "transfer-encoding in a name": _with(b"x: y\r\ntransfer-encoding", b"chunked"),
    "te: chunked": _with(b"te", b"chunked"),
    "te: trailers, chunked": _with(b"te", b"trailers, chunked"),
    # Fields of a connection
    **{
        f"the field {name.decode()}": _with(name, b"close")
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"Connection", b"Upgrade")
    },
    "connection names a field": _with(b"connection", b"content-length"),
    # Names
    **{
        f"the name {name!r}": _with(name)
        for name in (
            *(
                b"",
                b"Upper",
                b"UPPER",
                b"x:y",
                b"x: y",
                b"x y",
                b" x",
                b"x ",
                b"\tx",
                b"x\t",
                b"x\r",
                b"x\n",
                b"x\r\ny",
            ),
            *(
                b"x\0",
                b"x\x7f",
                b"\xc3\xa9",
                b"x\r\n\r\n" + INJECTED,
                b"x(",
                b"x,y",
                b"x;y",
                b"x=y",
                b"x/y",
                b'"x"',
                b"@",
            ),
            *(b"x\x0b", b"x\x85", b"\xef\xbb\xbfx", b":", b"host:"),
        )
    },
    # Values
    **{
        f"the value {value!r}": _with(b"x", value)
        for value in (
            *(LINE, b"x\ninjected: yes", b"x\rinjected: yes", b"x\r\n\r\n" + INJECTED, b"x\r\n folded", b"x\n\tfolded"),
            *(b"\r\n", b"\n", b"\r", b"x\0y", b"\0", b" x", b"x ", b"\tx", b"x\t", b" ", b"x\x01", b"x\x1f", b"x\x7f"),
        )
    },
    "a line in a cookie": _with(b"cookie", LINE),
    "a line in a user agent": _with(b"user-agent", LINE),
    # :method
    **{
        f"the method {value!r}": headers(1, pseudo(method=value))
        for value in (b"", b"G T", b"GET /injected HTTP/1.1\r\nx: y", b"GET\r\n", b"GET\0", b"G\tT", b"GET:", b"\xc7ET")
    },
    "no method": headers(1, pseudo(method=None)),
    "a method of 65 bytes": headers(1, pseudo(method=b"M" * 65)),
    # :path
    **{
        f"the path {value!r}": headers(1, pseudo(path=value))
        for value in (
            *(
                b"",
                b"x",
                b"*",
                b"?x",
                b"#",
                b"/#fragment",
                b"/a#",
                b"/a b",
                b"/ HTTP/1.1\r\ninjected: yes\r\nx: ",
                b"/\r\n",
            ),
            *(
                b"/\n",
                b"/\r",
                b"/\0",
                b"/\t",
                b"/\x7f",
                b"/\x80",
                b"/\xc3\xa9",
                b" /",
                b"/ ",
                b"\\evil",
                b"a.example:80",
            ),
            *(b"http://evil/", b"https://a.example/", b"/ HTTP/1.0", b"/ HTTP/1.1\r\n\r\n" + INJECTED, b"evil/x"),
        )
    },
    "no path": headers(1, pseudo(path=None)),
    # :scheme
    **{
        f"the scheme {value!r}": headers(1, pseudo(scheme=value))
        for value in (b"", b"ftp", b"http\r\nx: y", b"http://evil/?", b"http ", b"javascript", b"h\0ttp", b"http:")
    },
    "no scheme": headers(1, pseudo(scheme=None)),
    # :authority and host
    **{
        f"the authority {value!r}": headers(1, pseudo(authority=value))
        for value in (
            *(b"", b"a b", b"user@a", b"user:pw@a", b"a/b", b"a?b", b"a#b", b"a,b", LINE, b"a\0", b"a\t", b"a:port"),
            *(
                b"a:99999",
                b"[::1",
                b"::1]",
                b"[::1]x",
                b"a\\b",
                b"a:80:80",
                b" a",
                b"a ",
                b"[zz]",
                b"<a>",
                b'"a"',
                b"a\r",
            ),
        )
    },
    "neither authority nor host": headers(1, pseudo(authority=None)),
    "host and authority differ": _with(b"host", b"evil"),
    "host and authority differ by a port": _with(b"host", b"a.example:81"),
    "two hosts": headers(1, [*pseudo(authority=None), (b"host", b"a.example"), (b"host", b"a.example")]),
    "two hosts that differ": headers(1, [*pseudo(), (b"host", b"a.example"), (b"host", b"evil")]),
    "a host with a line": headers(1, [*pseudo(authority=None), (b"host", LINE)]),
    "a host with userinfo": headers(1, [*pseudo(authority=None), (b"host", b"user@a")]),
    "an empty host": headers(1, [*pseudo(authority=None), (b"host", b"")]),
    # Pseudo-fields that are not as they must be
    **{
        f"{name.decode()} twice": headers(1, [*pseudo(), (name, value)])
        for name, value in (
            (b":method", b"GET"),
            (b":path", b"/"),
            (b":scheme", b"http"),
            (b":authority", b"a.example"),
        )
    },
    "two paths that differ": headers(1, [*pseudo(), (b":path", b"/injected")]),
    "a late pseudo-field": headers(1, [*pseudo(path=None), (b"x", b"y"), (b":path", b"/")]),
    "a late second path": headers(1, [*pseudo(), (b"x", b"y"), (b":path", b"/injected")]),
    "an unknown pseudo-field": headers(1, [*pseudo(), (b":unknown", b"y")]),
    "a pseudo-field of answers": headers(1, [*pseudo(), (b":status", b"200")]),
    ":Path": headers(1, [*pseudo(path=None), (b":Path", b"/")]),
    "no fields at all": frame(HEADERS, END_HEADERS | END_STREAM, 1),
    ":protocol without CONNECT": headers(1, [*pseudo(), (b":protocol", b"websocket")]),
    # CONNECT
    "CONNECT": headers(1, [(b":method", b"CONNECT"), (b":authority", b"evil:443")], end=False),
    "CONNECT with a path": headers(1, pseudo(method=b"CONNECT"), end=False),
    "CONNECT without an authority": headers(1, [(b":method", b"CONNECT")], end=False),
    "CONNECT with a line": headers(1, [(b":method", b"CONNECT"), (b":authority", LINE)], end=False),
    "CONNECT of an unknown protocol": headers(1, [*pseudo(method=b"CONNECT"), (b":protocol", b"h2c")], end=False),
    "CONNECT of a protocol with a line": headers(1, [*pseudo(method=b"CONNECT"), (b":protocol", LINE)], end=False),
    "CONNECT of a protocol without an authority": headers(
        1, [*pseudo(method=b"CONNECT", authority=None), (b":protocol", b"websocket")], end=False
    ),
    "a WebSocket with a length": headers(
        1, [*pseudo(method=b"CONNECT"), (b":protocol", b"websocket"), *_length(b"5")], end=False
    ),
    # Trailers
    "a pseudo-field in trailers": upload([], b"abcd", trailers=[(b":path", b"/injected")]),
    "transfer-encoding in trailers": upload([], b"abcd", trailers=[(b"transfer-encoding", b"chunked")]),
    "connection in trailers": upload([], b"abcd", trailers=[(b"connection", b"close")]),
    "a line in trailers": upload([], b"abcd", trailers=[(b"x", b"y\r\n\r\n" + INJECTED)]),
    "a line in the name of a trailer": upload([], b"abcd", trailers=[(b"x\r\n\r\n", b"y")]),
    "an upper-case name in trailers": upload([], b"abcd", trailers=[(b"X", b"y")]),
    "trailers that do not end": headers(1, post(), end=False) + headers(1, [(b"x", b"y")], end=False),
    # HTTP/1 refuses these, too
    "an unknown expectation": _with(b"expect", b"nonsense"),
}

PASSED: dict[str, Passed] = {
    "a request": Passed(headers(1, get())),
    "host alone": Passed(headers(1, [*pseudo(authority=None), (b"host", b"a.example")])),
    "host as authority": Passed(_with(b"host", b"a.example"), fields={b"host": [b"a.example"]}),
    "an IPv6 authority": Passed(headers(1, pseudo(authority=b"[::1]:80")), authority=b"[::1]:80"),
    "OPTIONS *": Passed(headers(1, pseudo(method=b"OPTIONS", path=b"*")), target=b"*", method=b"OPTIONS"),
    "a method in lower case": Passed(headers(1, pseudo(method=b"get")), method=b"get"),
    "two slashes": Passed(headers(1, pseudo(path=b"//evil/")), target=b"//evil/"),
    "a URL in the query": Passed(headers(1, pseudo(path=b"/?u=http://evil/")), target=b"/?u=http://evil/"),
    "dots and escapes": Passed(headers(1, pseudo(path=b"/a/../%2e%00%0d%0a")), target=b"/a/../%2e%00%0d%0a"),
    "a length": Passed(upload(_length(b"4"), b"abcd"), method=b"POST", body=b"abcd", fields={b"transfer-encoding": []}),
    "a length of 0": Passed(headers(1, post(b"/", *_length(b"0"))), method=b"POST"),
    "DATA that looks like a request": Passed(upload([], INJECTED), method=b"POST", body=INJECTED),
    "DATA that looks like chunks": Passed(
        upload([], b"0\r\n\r\n", INJECTED), method=b"POST", body=b"0\r\n\r\n" + INJECTED
    ),
    "a length, and DATA that looks like chunks": Passed(
        upload(_length(b"%d" % (5 + len(INJECTED))), b"0\r\n\r\n", INJECTED),
        method=b"POST",
        body=b"0\r\n\r\n" + INJECTED,
    ),
    "an empty DATA frame": Passed(upload([], b"ab", b"", b"cd", b""), method=b"POST", body=b"abcd"),
    "GET with a body": Passed(headers(1, get(), end=False) + data(1, INJECTED, end=True), body=INJECTED),
    "cookie crumbs": Passed(
        headers(1, get(b"/", (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"))),
        fields={b"cookie": [b"a=1; b=2"], b"x": [b"y"]},
    ),
    "fields that only look like ours": Passed(
        headers(
            1, get(b"/", (b"x_forwarded_for", b"evil"), (b"content_length", b"5"), (b"transfer_encoding", b"chunked"))
        ),
        fields={b"x_forwarded_for": [], b"content_length": [], b"transfer_encoding": []},
    ),
    "who the client says it is": Passed(
        headers(1, get(b"/", (b"x-forwarded-for", b"evil"), (b"x-request-id", LINE[:1]))),
        fields={b"x-forwarded-for": [b"127.0.0.1"]},
    ),
    "fields that end at a proxy": Passed(
        headers(1, get(b"/", (b"proxy-authorization", b"x"), (b"http2-settings", b"x"), (b"proxy", b"x"))),
        fields={b"proxy-authorization": [], b"http2-settings": [], b"proxy": []},
    ),
    "an empty value": Passed(_with(b"x", b""), fields={b"x": [b""]}),
    "a value with a tab and bytes of no ASCII": Passed(_with(b"x", b"a\tb\xff"), fields={b"x": [b"a\tb\xff"]}),
    "a long id": Passed(_with(b"x", b"i" * 8000), fields={b"x": [b"i" * 8000]}),
    "trailers": Passed(
        upload([], b"abcd", trailers=[(b"x-sum", b"1")]), method=b"POST", body=b"abcd", trailers=((b"x-sum", b"1"),)
    ),
    "trailers that frame or route": Passed(
        upload([], b"abcd", trailers=[(b"content-length", b"9"), (b"host", b"evil"), (b"x", b"y"), (b"cookie", b"z")]),
        method=b"POST",
        body=b"abcd",
        trailers=((b"x", b"y"),),
    ),
}
