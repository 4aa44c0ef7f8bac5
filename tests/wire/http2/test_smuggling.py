"""Nothing can be smuggled by way of a request of HTTP/2: what is spelt has exactly the fields that were given.

Field lists of any kind, most of them hostile. Whatever spell_request accepts is read by three: lines split by hand,
h11, and read_request; all must find the fields of the list, and nothing else.
"""

import h11
from hypothesis import event, given, settings
from hypothesis import strategies as st

from lbproxy.wire.head import Lines, Refused, read_request
from lbproxy.wire.http2.errors import MalformedMessage
from lbproxy.wire.http2.request import CheckedFields, spell_request
from lbproxy.wire.lines import REQUEST_KINDS, impersonates

Field = tuple[bytes, bytes]

CHECKED = CheckedFields()  # shared by all, so that what is remembered is met again

SPLITTERS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"#",
    b"@",
    b"/",
    b"?",
    b"\x7f",
    b"\x85",
    b"\xff",
]
INJECTED = [
    b"\r\nHost: evil",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nContent-Length: 0\r\n\r\nGET /evil HTTP/1.1",
    b"\n\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n",
    b" HTTP/1.1\r\nX: y",
    b" HTTP/1.1",
    b": b\r\nc",
]
SPICE = st.sampled_from([b"", *SPLITTERS, *INJECTED]) | st.binary(max_size=3)


def spiced(words: list[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly one of the words, sometimes with something in it that ought not to be there."""
    word = st.sampled_from(words)
    bent = st.builds(lambda text, spice, at: text[:at] + spice + text[at:], word, SPICE, st.integers(0, 9))
    return st.integers(0, 11).flatmap(lambda number: word if number else bent)


PLAIN = (
    b"accept cookie x-a x-b x_forwarded_for user-agent x-forwarded-for content_length trailer sec-websocket-key".split()
)
DANGEROUS = b"content-length transfer-encoding connection te host upgrade expect keep-alive cookie X-A".split()
FIELDS = st.tuples(
    spiced(PLAIN), spiced([b"a", b"", b"a=b", b"chunked", b"a.example", b"x" * 30, b"\xc3\xa4"])
) | st.tuples(spiced(DANGEROUS), spiced([b"0", b"5", b"chunked", b"trailers", b"close", b"a.example", b"100-continue"]))
PSEUDO = {
    b":method": spiced([b"GET", b"POST", b"OPTIONS", b"get", b"CONNECT"]),
    b":scheme": spiced([b"http", b"https"]),
    b":authority": spiced([b"a.example", b"a.example:8080", b"[::1]:80", b"127.0.0.1"]),
    b":path": spiced([b"/", b"/x?y=z", b"/a", b"*", b"//b.example/", b"/%0d%0a", b"http://b.example/"]),
    b":protocol": spiced([b"websocket", b"connect-udp"]),
}


@st.composite
def field_lists(draw: st.DrawFn) -> tuple[Field, ...]:
    usual = [b":method", b":scheme", b":authority", b":path"]
    if draw(st.integers(0, 9)) == 0:
        usual = draw(st.lists(st.sampled_from(list(PSEUDO)), max_size=6))
    fields = [(name, draw(PSEUDO[name])) for name in usual]
    fields += draw(st.lists(FIELDS, max_size=4))
    if draw(st.integers(0, 9)) == 0:
        fields.append((draw(st.sampled_from(list(PSEUDO))), draw(SPICE)))
    return tuple(fields)


def expected(fields: tuple[Field, ...], end: bool) -> tuple[bytes, list[Field]]:
    """Start line and fields, made in the plainest way."""
    pseudo = {name: value for name, value in fields if name.startswith(b":")}
    others = [(name, value) for name, value in fields if not name.startswith(b":")]
    names = [name for name, _ in others]
    kept = [(name, value) for name, value in others if name not in (b"host", b"cookie", b"content-length")]
    hosts = [value for name, value in others if name == b"host"]
    method, path = pseudo[b":method"], pseudo.get(b":path", b"")
    if method == b"CONNECT":
        if pseudo.get(b":protocol") == b"websocket":
            method = b"GET"
            kept = [(name, value) for name, value in kept if name != b"sec-websocket-key"]
            kept += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", b"a2V5")]
        else:
            path = pseudo[b":authority"]
    host = pseudo.get(b":authority", hosts[0] if hosts else None)
    kept += [] if host is None else [(b"host", host)]
    if b"cookie" in names:
        kept.append((b"cookie", b"; ".join(value for name, value in others if name == b"cookie" and value)))
    kept += [(name, value) for name, value in others if name == b"content-length"]
    if not end and b"content-length" not in names and b":protocol" not in pseudo:
        kept.append((b"transfer-encoding", b"chunked"))
    return b"%b %b HTTP/1.1" % (method, path), sorted(kept)


@settings(max_examples=1500)
@given(fields=field_lists(), end=st.booleans())
def test_what_is_spelt_has_exactly_the_fields_that_were_given(fields: tuple[Field, ...], end: bool) -> None:
    try:
        raw = spell_request(fields, end=end, websocket_key=b"a2V5", checked=CHECKED)
    except MalformedMessage:
        event("refused")
        return
    event("spelt")
    start, due = expected(fields, end)
    lines = raw.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert lines[0] == start
    assert not any(mark in line for line in lines for mark in (b"\r", b"\n", b"\0"))
    split = [line.partition(b":") for line in lines[1:-2]]
    assert sorted((name, value.removeprefix(b" ")) for name, _, value in split) == due
    h11_reads(raw, start, due)
    we_read(raw, start, due)


def h11_reads(raw: bytes, start: bytes, due: list[Field]) -> None:
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(raw)
    try:
        request = peer.next_event()
    except h11.RemoteProtocolError:
        event("h11 refuses")  # it asks for a host; our own reader may not accept what it refuses: http1.confirm_request
        return
    assert isinstance(request, h11.Request)
    method, target, version = start.split(b" ")
    assert (request.method, request.target, version) == (method, target, b"HTTP/1.1")
    assert sorted(request.headers) == due
    if not request.headers or (b"transfer-encoding", b"chunked") not in due:
        assert peer.trailing_data[0] == b""


def we_read(raw: bytes, start: bytes, due: list[Field]) -> None:
    try:
        head = read_request(raw, Lines(), 100)
    except Refused:
        event("our reader of HTTP/1 refuses")
        return
    event("accepted")
    given = dict(due)
    method, target, _ = start.split(b" ")
    assert (head.method, head.target, head.host) == (method, target, given[b"host"])
    assert head.chunked == (b"transfer-encoding" in given)
    assert head.length == (int(given[b"content-length"]) if b"content-length" in given else None)
    read = sorted((name, value.removeprefix(b" ")) for name, _, value in (line.partition(b":") for line in head.lines))
    noted = {b"accept", b"user-agent", b"referer"}
    plain = [(name, value) for name, value in due if name in noted or not (name in REQUEST_KINDS or impersonates(name))]
    assert read == [(name, value) for name, value in plain if not name.startswith(b"x-forwarded-")]
