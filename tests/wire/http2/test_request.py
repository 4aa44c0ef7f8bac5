import pytest

from lbproxy.wire.head import Lines, Refused, read_request
from lbproxy.wire.http1 import confirm_request
from lbproxy.wire.http2.errors import MalformedMessage
from lbproxy.wire.http2.hpack import Fields
from lbproxy.wire.http2.request import CheckedFields, spell_request, trailers_of

M, S, A, P = (b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/x?y")
EXTENDED = ((b":method", b"CONNECT"), (b":protocol", b"websocket"), S, A, P)


def test_a_request_is_spelt_as_http1_has_it() -> None:
    fields = (
        M,
        S,
        A,
        P,
        (b"accept", b"*/*"),
        (b"cookie", b"a=b"),
        (b"x-e", b""),
        (b"te", b"trailers"),
        (b"cookie", b"c"),
    )
    assert spell_request(fields, end=True) == (
        b"GET /x?y HTTP/1.1\r\nhost: a.example\r\naccept: */*\r\nx-e:\r\nte: trailers\r\ncookie: a=b; c\r\n\r\n"
    )
    head = b"GET /x?y HTTP/1.1\r\nhost: a.example\r\n"
    assert spell_request((M, S, A, P), end=False) == head + b"transfer-encoding: chunked\r\n\r\n"
    assert spell_request((M, S, A, P, (b"content-length", b"3")), end=False) == head + b"content-length: 3\r\n\r\n"
    assert spell_request((M, S, P, (b"host", b"a.example")), end=True) == head + b"\r\n"
    assert spell_request((M, S, A, P, (b"host", b"A.example")), end=True) == head + b"\r\n"
    star = ((b":method", b"OPTIONS"), S, A, (b":path", b"*"))
    assert spell_request(star, end=True) == b"OPTIONS * HTTP/1.1\r\nhost: a.example\r\n\r\n"


def test_a_websocket_becomes_the_upgrade_that_it_stands_for() -> None:
    fields = (*EXTENDED, (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"theirs"))
    raw = spell_request(fields, end=False, websocket_key=b"a2V5")
    head = read_request(raw, Lines(), 100)
    confirm_request(raw, head)
    assert (head.method, head.target, head.upgrades) == (b"GET", b"/x?y", (b"websocket",))
    assert head.lines == [b"sec-websocket-version: 13", b"sec-websocket-key: a2V5"]
    assert not head.chunked


def test_another_protocol_is_offered_as_it_is_spelt() -> None:
    fields = ((b":method", b"CONNECT"), (b":protocol", b"Connect-UDP"), S, A, P, (b"x", b"y"))
    head = read_request(spell_request(fields, end=False, websocket_key=b"a2V5"), Lines(), 100)
    assert (head.method, head.upgrades, head.lines, head.chunked) == (b"GET", (b"Connect-UDP",), [b"x: y"], False)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (((b":method", b"CONNECT"), A), 501),
        (((b":method", b"CONNECT"), (b":protocol", b"h2c"), S, A, P), 501),
        (((b":method", b"X" * 65), S, A, P), 501),
        ((M, S, P), 400),
        ((M, S, A, P, (b"expect", b"wonders")), 417),
        ((M, S, A, P, *[(b"x-a", b"b")] * 100), 431),
    ],
)
def test_what_http1_refuses_too_gets_its_status(fields: Fields, status: int) -> None:
    with pytest.raises(Refused) as refused:
        read_request(spell_request(fields, end=True), Lines(), 100)
    assert refused.value.status == status


@pytest.mark.parametrize(
    "fields",
    [
        (S, A, P),
        (M, A, P),
        (M, S, A),
        (M, M, S, A, P),
        (M, S, A, P, P),
        (M, S, A, (b"a", b"b"), P),
        (M, S, A, P, (b":status", b"200")),
        (M, S, A, P, (b":protocol", b"websocket")),
        ((b":Method", b"GET"), S, A, P),
        (M, S, A, (b":path", b"")),
        (M, S, A, (b":path", b"x")),
        (M, S, A, (b":path", b"*")),
        (M, S, A, (b":path", b"/ HTTP/1.1")),
        (M, S, A, (b":path", b"/\r\nX: y")),
        (M, S, A, (b":path", b"/#a")),
        (M, S, A, (b":path", b"/\xff")),
        (M, S, A, (b":path", b"http://b.example/")),
        (M, (b":scheme", b""), A, P),
        (M, (b":scheme", b"ftp"), A, P),
        ((b":method", b""), S, A, P),
        ((b":method", b"GET /"), S, A, P),
        ((b":method", b"GET\r\n"), S, A, P),
        (M, S, (b":authority", b""), P),
        (M, S, (b":authority", b"u@a.example"), P),
        (M, S, (b":authority", b"a.example\r\nX: y"), P),
        (M, S, A, P, (b"host", b"b.example")),
        (M, S, A, P, (b"host", b"a.example"), (b"host", b"a.example")),
        (M, S, P, (b"host", b"a b")),
        (M, S, A, P, (b"X-a", b"b")),
        (M, S, A, P, (b"", b"b")),
        (M, S, A, P, (b"a b", b"b")),
        (M, S, A, P, (b"a:", b"b")),
        (M, S, A, P, (b"a", b" b")),
        (M, S, A, P, (b"a", b"b\t")),
        (M, S, A, P, (b"a", b" ")),
        (M, S, A, P, (b"a", b"b\r\nc: d")),
        (M, S, A, P, (b"a", b"b\0")),
        (M, S, A, P, (b"a", b"\x7f")),
        (M, S, A, P, (b"connection", b"close")),
        (M, S, A, P, (b"keep-alive", b"5")),
        (M, S, A, P, (b"proxy-connection", b"close")),
        (M, S, A, P, (b"transfer-encoding", b"chunked")),
        (M, S, A, P, (b"upgrade", b"h2c")),
        (M, S, A, P, (b"te", b"gzip")),
        (M, S, A, P, (b"te", b"trailers, gzip")),
        (M, S, A, P, (b"content-length", b"0"), (b"content-length", b"0")),
        (M, S, A, P, (b"content-length", b"+0")),
        (M, S, A, P, (b"content-length", b"0,0")),
        (M, S, A, P, (b"content-length", b"")),
        (M, S, A, P, (b"content-length", b"1")),
        ((b":method", b"CONNECT"), S, A, P),
        ((b":method", b"CONNECT"),),
        ((b":method", b"CONNECT"), (b":protocol", b"websocket"), A),
        ((b":method", b"CONNECT"), (b":protocol", b"websocket"), S, P),
        ((b":method", b"CONNECT"), (b":protocol", b"web socket"), S, A, P),
    ],
)
def test_a_malformed_request_is_a_stream_error(fields: Fields) -> None:
    with pytest.raises(MalformedMessage):
        spell_request(fields, end=True)


def test_fields_that_were_found_good_are_remembered_within_bounds() -> None:
    checked = CheckedFields()
    fields = (M, S, A, P, (b"cookie", b"a"), (b"accept", b"*/*"), (b"te", b"trailers"), (b"cookie", b""))
    once = spell_request(fields, end=True, checked=checked)
    assert once == spell_request(fields, end=True, checked=checked) == spell_request(fields, end=True)
    assert once.endswith(b"\r\naccept: */*\r\nte: trailers\r\ncookie: a\r\n\r\n")
    assert len(checked) == 2
    for number in range(3 * CheckedFields.MOST_FIELDS):
        spell_request((M, S, A, P, (b"a", b"%d" % number)), end=True, checked=checked)
    assert len(checked) <= CheckedFields.MOST_FIELDS
    size = len(checked)
    spell_request((M, S, A, P, (b"a", b"b" * 300)), end=True, checked=checked)
    assert len(checked) == size


def test_trailers_keep_what_is_safe() -> None:
    assert trailers_of(((b"x-sum", b"7"), (b"host", b"b"), (b"content-length", b"1"), (b"x-e", b""))) == [
        b"x-sum: 7",
        b"x-e:",
    ]


@pytest.mark.parametrize(
    "pair", [(b":path", b"/"), (b"X", b"a"), (b"a", b"b\n"), (b"connection", b"close"), (b"", b"")]
)
def test_malformed_trailers_are_refused(pair: tuple[bytes, bytes]) -> None:
    with pytest.raises(MalformedMessage):
        trailers_of((pair,))
