"""Hypothesis strategies for HTTP heads: plausible pieces, put together freely, then bent a little."""

from hypothesis import strategies as st

from support.http_corpus import BAD_CODINGS, BAD_LENGTHS

starts = st.builds(
    b"%b %b HTTP/%b".__mod__,
    st.tuples(
        st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"CONNECT", b"get", b"X-Y", b"G T"]),
        st.sampled_from(
            [
                b"/",
                b"/a?b=c",
                b"*",
                b"http://b",
                b"http://b:8/c?d",
                b"HTTPS://b?x",
                b"//x",
                b"a:80",
                b"/\xe4",
                b"/#",
                b"http://u@b/",
                b"/%",
            ]
        ),
        st.sampled_from([b"1.1", b"1.0", b"1.5", b"2.0", b"0.9", b"1.10", b"1.1 "]),
    ),
)
names = st.sampled_from(
    b"Host host Content-Length content-length Transfer-Encoding Connection Upgrade TE Trailer Expect Accept Cookie Via "
    b"X-Forwarded-For X_Forwarded_For Content_Length Keep-Alive Content-Type Content-Encoding X-Foo Proxy User-Agent "
    b"X-Request-ID".split()
)
values = st.one_of(
    st.sampled_from(
        [b"3", b"3, 3", b"0", b"chunked", b"Chunked", b"close", b"keep-alive", b"Keep-Alive, X-Foo", b"upgrade",
        b"websocket", b"h2c",
         b"trailers", b"100-continue", b"a.example", b"b:80", b"[::1]", b"", b"text/event-stream", b"gzip",
         b"close, host", b"a  b\tc"]
    ),
    st.sampled_from([*BAD_LENGTHS, *BAD_CODINGS]),
    st.binary(max_size=12),
)  # fmt: skip
blanks = st.sampled_from([b" ", b"", b"\t", b"  ", b" \t "])
fields = st.builds(b"%b:%b%b%b".__mod__, st.tuples(names, blanks, values, blanks))
good_fields = st.sampled_from(
    [b"Host: a", b"Accept: */*", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Connection: close", b"X: y"]
)
bodies = st.lists(st.one_of(good_fields, good_fields, fields), max_size=6)
requests = st.builds(
    lambda start, lines: b"\r\n".join([start, b"Host: a", *lines, b"\r\n"]), starts | st.just(b"GET / HTTP/1.1"), bodies
)
statuses = st.builds(
    b"HTTP/%b %b%b".__mod__,
    st.tuples(
        st.sampled_from([b"1.1", b"1.1", b"1.0", b"1.4", b"2.0"]),
        st.sampled_from([b"200", b"204", b"304", b"100", b"101", b"103", b"404", b"999", b"099", b"20"]),
        st.sampled_from([b" OK", b"", b" ", b" a\tb \xe4", b"  x", b" \x01"]),
    ),
)
responses = st.builds(lambda start, lines: b"\r\n".join([start, *lines, b"\r\n"]), statuses, bodies)
NASTY = [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b",", b";", b"\x00", b"\x0b", b"\x0c", b"\x1c", b"\x7f", b"\x80",
b"\x85", b"\xa0", b"\xff", b"0", b"A",
         b"#", b"@", b"\r\n ", b"\n\n", b"_", b"/"]  # fmt: skip


@st.composite
def bent(draw: st.DrawFn, heads: st.SearchStrategy[bytes]) -> bytes:
    raw = draw(heads)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(raw) - 4))
        raw = raw[:at] + draw(st.sampled_from([b"", *NASTY])) + raw[at + draw(st.integers(0, 2)) :]
    return raw
