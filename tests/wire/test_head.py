"""HTTP.md, row by row: heads of requests and of responses."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each import each
from support.http_corpus import (
    ACCEPTED_REQUESTS,
    ACCEPTED_RESPONSES,
    REFUSED_REQUESTS,
    REFUSED_RESPONSES,
    request,
    response,
)

from lbproxy.wire.head import (
    Lines,
    Refused,
    RequestHead,
    ResponseHead,
    field_values,
    head_end,
    passed_upgrades,
    read_request,
    read_response,
    response_head_end,
)

LIMIT = 16 * 1024


def read(raw: bytes, lines: Lines | None = None) -> RequestHead:
    end = head_end(raw, 0, LIMIT)
    assert end >= 0
    return read_request(raw[:end], lines or Lines(), 100)


def read_back(raw: bytes, lines: Lines | None = None) -> ResponseHead:
    end = response_head_end(raw, 0)
    assert end >= 0
    return read_response(raw[:end], lines or Lines())


def status_of(function: Callable[..., object], *arguments: object) -> int:
    """The status of the refusal that this call must end in."""
    with pytest.raises(Refused) as caught:
        function(*arguments)
    return caught.value.status


def status_byte_by_byte(raw: bytes, response: bool = False) -> int | None:
    buffer = bytearray()
    lines = Lines()
    try:
        for at in range(len(raw)):
            buffer += raw[at : at + 1]
            end = response_head_end(buffer, at) if response else head_end(buffer, at, LIMIT)
            if end >= 0:
                if response:
                    read_response(bytes(buffer[:end]), lines)
                else:
                    read_request(bytes(buffer[:end]), lines, 100)
                return None
    except Refused as refused:
        return refused.status
    raise AssertionError("neither accepted nor refused")


@each(REFUSED_REQUESTS, name=str)
def test_a_request_that_two_could_read_differently_is_refused(case):
    lines = Lines()
    for raw in (case.raw, case.raw, case.raw + b"trailing \r\n\r\n bytes"):
        with pytest.raises(Refused) as caught:
            read(raw, lines)
        assert caught.value.status == case.status
        assert caught.value.token == "http_request_error"
    assert status_byte_by_byte(case.raw) == case.status


@each(REFUSED_REQUESTS, name=str)
def test_what_a_warm_memory_holds_changes_no_verdict(case):
    lines = Lines()
    for raw in ACCEPTED_REQUESTS:
        read(raw, lines)
    assert status_of(read, case.raw, lines) == case.status


@each(ACCEPTED_REQUESTS)
def test_an_accepted_request_reads_the_same_from_memory_and_at_every_cut(raw):
    lines = Lines()
    head = read(raw, lines)
    assert read(raw, lines) == head
    for cut in range(len(raw)):
        assert head_end(raw[:cut], 0, LIMIT) == -1
        assert head_end(raw, cut, LIMIT) == len(raw)
        assert head_end(bytearray(raw + b"next"), cut, LIMIT) == len(raw)
    assert status_byte_by_byte(raw) is None


@each(REFUSED_RESPONSES, name=str)
def test_a_response_that_two_could_read_differently_is_a_bad_gateway(case):
    lines = Lines()
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            read_back(case.raw, lines)
        assert caught.value.status == 502
        assert caught.value.token.startswith("http_")
    assert status_byte_by_byte(case.raw, response=True) == 502


@each(ACCEPTED_RESPONSES)
def test_an_accepted_response_reads_the_same_from_memory_and_at_every_cut(raw):
    lines = Lines()
    head = read_back(raw, lines)
    assert read_back(raw, lines) == head
    for cut in range(len(raw)):
        assert response_head_end(raw[:cut], 0) == -1
        assert response_head_end(raw + b"body", cut) == len(raw)


def test_a_typical_request_is_taken_apart():
    lines = [b"User-Agent: ab", b"Accept: */*", b"Cookie: a=b"]
    head = read(request(*lines, b"Connection: keep-alive", start=b"GET /x?y HTTP/1.1"))
    assert head == RequestHead(
        method=b"GET",
        target=b"/x?y",
        host=b"a.example",
        minor=1,
        keep_alive=True,
        length=None,
        chunked=False,
        lines=lines,
        fields={b"user-agent": [b"ab"], b"accept": [b"*/*"]},
    )


def test_a_typical_response_is_taken_apart():
    raw = response(b"Date: now", b"Content-Length: 5", b"Via: 1.0 x", b"Retry-After: 3", b"Connection: close")
    head = read_back(raw)
    assert head == ResponseHead(
        status=200,
        reason=b"OK",
        minor=1,
        keep_alive=False,
        length=5,
        chunked=False,
        lines=[b"Date: now", b"Retry-After: 3"],
        fields={b"via": [b"1.0 x"], b"retry-after": [b"3"]},
    )


def test_lines_are_forwarded_in_their_canonical_spelling():
    raw = request(b"A: \xe4\xff", b"B:\t b c\t ", b"C:", b"D:   ", b"E:e", b"F: f")
    assert read(raw).lines == [b"A: \xe4\xff", b"B: b c", b"C:", b"D:", b"E: e", b"F: f"]


def test_an_absolute_target_decides_the_host():
    head = read(request(start=b"GET http://b.example:81/p?q HTTP/1.1"))
    assert (head.target, head.host) == (b"/p?q", b"b.example:81")
    head = read(request(host=None, start=b"GET http://b.example HTTP/1.0"))
    assert (head.target, head.host) == (b"/", b"b.example")


def test_a_version_from_1_2_to_1_9_counts_as_1_1():
    assert read(request(start=b"GET / HTTP/1.7")).minor == 1
    assert read(request(start=b"GET / HTTP/1.0")).minor == 0


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [
        (b"1.1", None, True),
        (b"1.1", b"close", False),
        (b"1.1", b"Close", False),
        (b"1.1", b"keep-alive", True),
        (b"1.1", b"keep-alive, close", False),
        (b"1.1", b"x, , close", False),
        (b"1.1", b"closed", True),
        (b"1.0", None, False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"x, keep-alive", True),
        (b"1.0", b"keep-alive, close", False),
        (b"1.0", b"upgrade", False),
    ],
)
def test_a_connection_stays_by_version_and_wish(version, connection, stays):
    fields = [] if connection is None else [b"Connection: " + connection]
    assert read(request(*fields, start=b"GET / HTTP/" + version)).keep_alive is stays
    assert read_back(response(*fields, start=b"HTTP/%b 200 OK" % version)).keep_alive is stays


def test_close_wins_over_keep_alive_in_another_line():
    assert not read(request(b"Connection: close", b"Connection: keep-alive")).keep_alive
    assert not read(request(b"Connection: keep-alive", b"Connection: close")).keep_alive


def test_identical_lengths_are_one_length():
    head = read(request(b"Content-Length: 3, 3", b"content-length:3", start=b"POST / HTTP/1.1"))
    assert (head.length, head.chunked, head.lines) == (3, False, [])
    assert read_back(response(b"Content-Length: 7", b"Content-Length: 7")).length == 7


def test_chunked_is_known_in_any_case_and_never_passed_on():
    head = read(request(b"transfer-encoding:\t CHUNKed \t", start=b"POST / HTTP/1.1"))
    assert (head.length, head.chunked, head.lines) == (None, True, [])
    head = read_back(response(b"Transfer-Encoding: chunked"))
    assert (head.length, head.chunked, head.lines) == (None, True, [])


def test_what_connection_names_is_removed():
    head = read(request(b"Connection: close, X-Foo", b"Connection: x-BAR", b"x-foo: 1", b"X-Bar: 2", b"X-Baz: 3"))
    assert head.lines == [b"X-Baz: 3"]
    head = read_back(response(b"X-Foo: 1", b"Y: 2", b"Connection: x-foo", b"Set-Cookie: a=b"))
    assert head.lines == [b"Y: 2", b"Set-Cookie: a=b"]


def test_connection_cannot_remove_host_framing_or_what_we_set():
    named = b"Connection: Host, Content-Length, Transfer-Encoding, X-Forwarded-For, X-Request-ID, Via, Expect"
    raw = request(
        named, b"Content-Length: 3", b"X-Forwarded-For: 1", b"X-Request-ID: 2", b"Via: 1.1 x", b"Expect: 100-continue"
    )
    head = read(raw)
    assert (head.host, head.length, head.expects_continue) == (b"a.example", 3, True)
    assert head.fields == {b"x-forwarded-for": [b"1"], b"x-request-id": [b"2"], b"via": [b"1.1 x"]}
    assert read(request(b"Connection: transfer-encoding", b"Transfer-Encoding: chunked")).chunked
    head = read(request(b"Connection: X-Real-IP", b"X-Real-IP: 1"))
    assert head.fields == {}


HOP_BY_HOP = [
    b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"TE: gzip", b"Trailer: X-Sum", b"Upgrade: h2c",
    b"Proxy: http://evil",
    b"Proxy-Authenticate: Basic", b"Proxy-Authorization: Basic eDp5", b"HTTP2-Settings: AAMAAABkAAQ",
    b"proxy-connection: close",
]  # fmt: skip


@pytest.mark.parametrize("line", HOP_BY_HOP)
def test_hop_by_hop_fields_are_removed(line):
    head = read(request(line, b"A: b"))
    assert (head.lines, head.fields) == ([b"A: b"], {})
    head = read_back(response(line, b"A: b"))
    assert (head.lines, head.fields) == ([b"A: b"], {})


@each(b"X_Forwarded_For x-forwarded_proto X_REQUEST_ID Content_Length Transfer_Encoding X_Real_IP Keep_Alive".split())
def test_a_name_with_underscores_that_would_spell_ours_is_removed(name):
    head = read(request(name + b": 1", b"User_Id: 2"))
    assert (head.lines, head.fields) == ([b"User_Id: 2"], {})


def test_what_lbproxy_reads_is_in_fields_and_what_it_sets_only_there():
    raw = request(
        b"X-Forwarded-For: 1.1.1.1", b"x-forwarded-for: 2.2.2.2", b"X-Forwarded-Port: 80", b"Via: 1.1 a",
        b"X-Request-Id: r", b"X-Real-IP: 3",
        b"Forwarded: for=4", b"Referer: r", b"Accept: a", b"Accept: b", b"User-Agent:u",
    )  # fmt: skip
    head = read(raw)
    assert head.lines == [b"Referer: r", b"Accept: a", b"Accept: b", b"User-Agent: u"]
    assert head.fields[b"x-forwarded-for"] == [b"1.1.1.1", b"2.2.2.2"]
    assert head.fields[b"accept"] == [b"a", b"b"]
    assert head.fields[b"user-agent"] == [b"u"]
    assert set(head.fields) == {
        b"x-forwarded-for", b"x-forwarded-port", b"via", b"x-request-id", b"x-real-ip", b"forwarded", b"referer",
        b"accept", b"user-agent",
    }  # fmt: skip


def test_two_heads_never_share_what_they_found():
    lines = Lines()
    one = read(request(b"Accept: a"), lines)
    two = read(request(b"Accept: a", b"Accept: b"), lines)
    assert one.fields[b"accept"] == [b"a"]
    assert two.fields[b"accept"] == [b"a", b"b"]
    assert read(request(b"Accept: a"), lines) == one


@pytest.mark.parametrize(
    ("start", "fields", "websocket"),
    [
        (b"GET / HTTP/1.1", [b"Connection: Upgrade", b"Upgrade: WebSocket"], True),
        (b"GET / HTTP/1.1", [b"Connection: keep-alive, upgrade", b"Upgrade: websocket"], True),
        (b"GET / HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 0"], True),
        (b"GET / HTTP/1.1", [b"Upgrade: websocket"], False),
        (b"GET / HTTP/1.1", [b"Connection: upgrade"], False),
        (b"GET / HTTP/1.0", [b"Connection: upgrade", b"Upgrade: websocket"], False),
        (b"POST / HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket"], False),
        (b"GET / HTTP/1.1", [b"Connection: upgrade", b"Upgrade: h2c"], False),
        (b"GET / HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket, h2c"], False),
        (b"GET / HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: h2c"], False),
        (b"GET / HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 3"], False),
        (b"GET / HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"], False),
    ],
)
def test_only_a_whole_websocket_handshake_keeps_its_upgrade(start, fields, websocket):
    head = read(request(*fields, start=start))
    assert passed_upgrades(head, ("websocket",)) == ((b"websocket",) if websocket else ())
    assert passed_upgrades(head, ()) == ()
    assert not any(line.lower().startswith((b"upgrade", b"connection")) for line in head.lines)


def test_a_426_says_which_protocol_it_wants():
    start = b"HTTP/1.1 426 Upgrade Required"
    head = read_back(response(b"Upgrade: websocket", b"Connection: Upgrade, close", start=start))
    assert head.lines[-2:] == [b"Upgrade: websocket", b"Connection: upgrade"]
    assert not read_back(response(b"Upgrade: h2c", start=start)).lines


def test_a_101_is_a_websocket_only_when_it_says_so():
    start = b"HTTP/1.1 101 Switching Protocols"
    assert read_back(response(b"Upgrade: websocket", b"Connection: Upgrade", start=start)).upgrade == b"websocket"
    assert not read_back(response(b"Upgrade: a, b", b"Connection: Upgrade", start=start)).upgrade
    assert not read_back(response(b"Upgrade: websocket", start=start)).upgrade
    assert not read_back(response(start=start)).upgrade
    assert not read_back(response(b"Upgrade: websocket", b"Connection: Upgrade")).upgrade


@pytest.mark.parametrize(
    ("fields", "stream"),
    [
        ([b"Content-Type: text/event-stream"], True),
        ([b"Content-Type: TEXT/event-stream; charset=utf-8", b"Content-Encoding: identity"], True),
        ([b"Content-Type: text/event-stream", b"Content-Encoding: gzip"], False),
        ([b"Content-Type: text/event-streams"], False),
        ([], False),
    ],
)
def test_an_event_stream_is_known_by_its_type_and_plain_coding(fields, stream):
    head = read_back(response(*fields))
    assert head.event_stream is stream
    assert head.lines == fields


def test_expectations_and_te_are_facts_and_not_lines():
    head = read(request(b"Expect: 100-Continue", b"TE: deflate;q=0.5, Trailers", b"Content-Length: 1"))
    assert (head.expects_continue, head.wants_trailers, head.lines) == (True, True, [])
    head = read(request(b"Expect: 100-continue", b"TE: deflate", b"Content-Length: 1", start=b"POST / HTTP/1.0"))
    assert (head.expects_continue, head.wants_trailers, head.lines) == (False, False, [])


def test_a_head_over_the_limit_is_refused_whole_or_in_parts():
    raw = request(b"A: " + b"b" * 200)
    assert head_end(raw, 0, len(raw)) == len(raw)
    for piece in (raw, raw[:-1], raw + b"body"):
        assert status_of(head_end, piece, 0, len(raw) - 1) == 431
    assert status_of(response_head_end, response(b"A: " + b"b" * 70_000), 0) == 502


def test_too_many_fields_are_refused():
    raw = request(*(b"A: %d" % number for number in range(99)))
    assert len(read_request(raw, Lines(), 100).lines) == 99
    assert status_of(read_request, raw, Lines(), 99) == 431
    read_back(response(*(b"A: b" for _ in range(256))))
    assert status_of(read_back, response(*(b"A: b" for _ in range(257)))) == 502


@pytest.mark.parametrize(
    "begun",
    [b"\x16", b"\x80", b"\xff\xfe", b" GET", b"\n", b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\nH", b"GET /\x00", b"GET /\xe4",
    b"\r\n\r\n", b"PRI * HTTP/2.0\r\n"],
)  # fmt: skip
def test_bytes_that_can_never_be_a_request_are_refused_before_the_head_ends(begun):
    assert status_of(head_end, begun, 0, LIMIT) == 400


@pytest.mark.parametrize("begun", [b"H2", b"\x15\x03", b"HTTP/2.0 200", b"HTTP/1.1 200 OK\nA", b"\r\nHTTP/1.1 200"])
def test_bytes_that_can_never_be_a_response_are_refused_before_the_head_ends(begun):
    assert status_of(response_head_end, begun, 0) == 502


def test_a_head_without_its_empty_line_is_no_head():
    for raw in (b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n", request() + b"x"):
        with pytest.raises(Refused):
            read_request(raw, Lines(), 100)
    for raw in (b"", b"HTTP/1.1 200 OK\r\n", response() + b"x"):
        with pytest.raises(Refused):
            read_response(raw, Lines())


def test_any_field_can_be_asked_for():
    head = read(request(b"X-Key:one", b"x-key: two", b"Accept: a"))
    expected = {b"x-key": [b"one", b"two"], b"accept": [b"a"], b"host": [b"a.example"], b"none": []}
    assert {name: field_values(head, name) for name in expected} == expected


@given(st.binary(max_size=200))
def test_rubbish_is_refused_or_read_and_nothing_else(raw):
    for text in (raw, b"GET / HTTP/1.1\r\n" + raw, request()[:-2] + raw + b"\r\n\r\n"):
        with contextlib.suppress(Refused):
            end = head_end(text, 0, LIMIT)
            if end >= 0:
                read_request(text[:end], Lines(), 100)
        text = b"HTTP/1.1 200 OK\r\n" + text
        with contextlib.suppress(Refused):
            end = response_head_end(text, 0)
            if end >= 0:
                read_response(text[:end], Lines())
