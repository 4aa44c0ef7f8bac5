"""The heads that lbproxy sends (CONTRACT.md 4), compared byte for byte."""

import re
from dataclasses import replace

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each import each
from support.http_corpus import ACCEPTED_REQUESTS, ACCEPTED_RESPONSES, request, response

from lbproxy.wire.forwarded import Trust
from lbproxy.wire.head import Lines, RequestHead, passed_upgrades, read_request, read_response
from lbproxy.wire.headers import (
    ClientFacts,
    Framing,
    client_of,
    framing_for_client,
    new_request_id,
    request_id_of,
    request_to_backend,
    response_to_client,
)
from lbproxy.wire.http1 import confirm_request, confirm_response

STRANGER = ClientFacts(b"9.9.9.9", trusted=False, proto=b"http")
FRIEND = ClientFacts(b"10.0.0.1", trusted=True, proto=b"https")
ID = b"0123456789abcdef"
GET = read_request(request(), Lines(), 100)
OLD_GET = read_request(request(start=b"GET / HTTP/1.0"), Lines(), 100)
HEAD = read_request(request(start=b"HEAD / HTTP/1.1"), Lines(), 100)


def read(*fields: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: a.example") -> RequestHead:
    return read_request(request(*fields, start=start, host=host), Lines(), 100)


def to_backend(*fields: bytes, client: ClientFacts = STRANGER, start: bytes = b"GET / HTTP/1.1") -> list[bytes]:
    asked = read(*fields, start=start)
    head = request_to_backend(asked, client, ID, passed_upgrades(asked, ("websocket",)))
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def to_client(*fields: bytes, asked: RequestHead = GET, start: bytes = b"HTTP/1.1 200 OK", stays: bool = True) -> bytes:
    head = read_response(response(*fields, start=start), Lines())
    return response_to_client(head, asked, ID, framing_for_client(head, asked), stays)


def test_a_request_reaches_the_backend_like_this():
    head = read(
        b"User-Agent:ab",
        b"X-Key: one",
        b"Connection: close, x-gone",
        b"X-Gone: 1",
        start=b"GET http://b:81/p?q HTTP/1.1",
    )
    assert request_to_backend(head, STRANGER, ID) == (
        b"GET /p?q HTTP/1.1\r\n"
        b"Host: b:81\r\n"
        b"User-Agent: ab\r\n"
        b"X-Key: one\r\n"
        b"X-Forwarded-For: 9.9.9.9\r\n"
        b"X-Forwarded-Proto: http\r\n"
        b"X-Forwarded-Host: b:81\r\n"
        b"X-Request-ID: 0123456789abcdef\r\n"
        b"Via: 1.1 lbproxy\r\n"
        b"\r\n"
    )


CLAIMS = [
    b"X-Forwarded-For: 1.1.1.1", b"x-forwarded-for: 2.2.2.2", b"X_Forwarded_For: 3.3.3.3", b"X-Forwarded-Proto: gopher",
    b"X-Forwarded-Host: evil", b"X-FORWARDED-PORT: 1", b"X-Forwarded_Prefix: /evil", b"X-Real-IP: 4.4.4.4",
    b"x_real_ip: 5.5.5.5",
    b"Forwarded: for=6.6.6.6", b"Proxy: http://evil", b"X-Request-ID: mine", b"x_request_id: mine too",
    b"Via: 1.0 fred",
    b"X-Client-Cert-Verified: 1", b"x_client_cert_subject: CN=root", b"X-CLIENT-CERT-SERIAL: 01",
    b"Client-Cert: :MII=:", b"client_cert-chain: :MII=:",
]  # fmt: skip


def test_what_a_stranger_says_of_itself_is_replaced():
    lines = to_backend(*CLAIMS)
    assert lines[2:] == [
        b"X-Forwarded-For: 9.9.9.9",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: a.example",
        b"X-Request-ID: 0123456789abcdef",
        b"Via: 1.0 fred, 1.1 lbproxy",
    ]


def test_what_a_trusted_peer_says_is_kept_and_the_peer_added():
    lines = to_backend(*CLAIMS, client=FRIEND)
    assert lines[2:] == [
        b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1",
        b"X-Forwarded-Proto: gopher",
        b"X-Forwarded-Host: evil",
        b"X-Forwarded-Port: 1",
        b"X-Real-IP: 4.4.4.4",
        b"Forwarded: for=6.6.6.6",
        b"X-Request-ID: 0123456789abcdef",
        b"Via: 1.0 fred, 1.1 lbproxy",
    ]


SHOWN = b"X-Client-Cert-Verified: 1\r\nX-Client-Cert-Serial: 0A\r\n"


def test_what_tls_says_of_a_client_is_told_whether_its_address_is_trusted_or_not():
    for client in (STRANGER, FRIEND):
        lines = to_backend(*CLAIMS, client=replace(client, certificate=SHOWN))
        told = [line for line in lines if b"cert" in line.lower()]
        assert told == SHOWN.split(b"\r\n")[:-1]


def test_a_trusted_peer_that_says_nothing_is_described_itself():
    assert to_backend(b"X-Forwarded-For:", client=FRIEND)[2:5] == [
        b"X-Forwarded-For: 10.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: a.example",
    ]


def test_a_peer_without_an_address_adds_none():
    for trusted in (False, True):
        client = ClientFacts(b"", trusted=trusted, proto=b"http")
        assert not [line for line in to_backend(client=client) if line.startswith(b"X-Forwarded-For")]
    client = ClientFacts(b"", trusted=True, proto=b"http")
    assert b"X-Forwarded-For: 1.1.1.1" in to_backend(b"X-Forwarded-For: 1.1.1.1", client=client)


def forwarded_lines(*lines: bytes, trusted: bool = True, ip: bytes = b"10.0.0.1") -> list[bytes]:
    client = ClientFacts(ip, trusted, b"https", True, Trust(("10.0.0.0/8",)))
    return [line for line in to_backend(*lines, client=client) if b"orwarded" in line]


def test_forwarded_is_written_for_any_client_and_replaces_what_a_stranger_says():
    assert forwarded_lines(b"Forwarded: for=6.6.6.6", trusted=False, ip=b"2001:db8::7") == [
        b"X-Forwarded-For: 2001:db8::7",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: a.example",
        b'Forwarded: for="[2001:db8::7]";host=a.example;proto=https',
    ]
    assert forwarded_lines(trusted=False, ip=b"")[-1] == b"Forwarded: for=unknown;host=a.example;proto=https"


def test_what_a_trusted_peer_says_in_one_field_stands_in_the_other_too():
    both = [
        b"X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.2, 10.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: shop.example",
        b"Forwarded: for=6.6.6.6, for=192.0.2.7;host=shop.example;proto=http, for=10.0.0.2, "
        b"for=10.0.0.1;host=a.example;proto=https",
    ]
    told = b'Forwarded: for=6.6.6.6, for="192.0.2.7";proto=http;host=shop.example, for=10.0.0.2'
    assert forwarded_lines(told) == both
    chain = b"X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.2"
    assert forwarded_lines(chain, b"X-Forwarded-Proto: http", b"X-Forwarded-Host: shop.example") == both


def test_a_malformed_forwarded_is_dropped_and_nobody_is_drawn_into_its_quotes():
    assert forwarded_lines(b'Forwarded: for="6.6.6.6')[-1] == b"Forwarded: for=10.0.0.1;host=a.example;proto=https"


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ((b"X-Forwarded-For: 6.6.6.6, 192.0.2.7", b"Forwarded: for=192.0.2.8"), b"192.0.2.7"),
        ((b'Forwarded: for=6.6.6.6, for="192.0.2.8:99", for=10.0.0.3',), b"192.0.2.8"),
        ((b"Forwarded: for=_hidden",), b"10.0.0.1"),
        ((b'Forwarded: for="192.0.2.8',), b"10.0.0.1"),
        ((), b"10.0.0.1"),
    ],
)
def test_the_client_is_the_one_that_trusted_peers_tell_of(lines: tuple[bytes, ...], client: bytes):
    trust = Trust(("10.0.0.0/8",))
    assert client_of(read(*lines), ClientFacts(b"10.0.0.1", True, b"http", True, trust)) == client
    assert client_of(read(*lines), ClientFacts(b"192.0.2.1", False, b"http", True, trust)) == b"192.0.2.1"


def test_a_request_of_1_0_without_host_gets_an_empty_one():
    head = request_to_backend(read(start=b"GET / HTTP/1.0", host=None), STRANGER, ID)
    assert head.startswith(b"GET / HTTP/1.1\r\nHost: \r\nX-Forwarded-For")
    assert b"X-Forwarded-Host" not in head


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ([], []),
        ([b"Content-Length: 3, 3"], [b"Content-Length: 3"]),
        ([b"Content-Length: 0"], [b"Content-Length: 0"]),
        ([b"Content-Length: 007"], [b"Content-Length: 7"]),
        ([b"transfer-encoding: CHUNKED"], [b"Transfer-Encoding: chunked"]),
        ([b"Content-Length: 3", b"Expect: 100-Continue"], [b"Content-Length: 3", b"Expect: 100-continue"]),
        ([b"TE: trailers, gzip"], [b"TE: trailers"]),
        ([b"TE: gzip"], []),
        ([b"Upgrade: websocket", b"Connection: upgrade"], [b"Connection: Upgrade", b"Upgrade: websocket"]),
        ([b"Upgrade: h2c", b"Connection: upgrade, http2-settings", b"HTTP2-Settings: a"], []),
        ([b"Upgrade: websocket"], []),
        ([b"Connection: keep-alive", b"Keep-Alive: 5", b"Proxy-Connection: keep-alive", b"Trailer: a"], []),
    ],
)
def test_framing_and_hops_are_made_by_us(fields, framing):
    lines = to_backend(*fields)
    assert lines[lines.index(b"Via: 1.1 lbproxy") + 1 :] == framing
    assert len(lines) == 7 + len(framing)


def test_a_request_id_is_kept_only_from_trusted_peers_and_only_if_plain():
    assert request_id_of(read(b"X-Request-ID: abc-1"), FRIEND) == b"abc-1"
    for fields in ([b"X-Request-ID: abc-1"], []):
        made = request_id_of(read(*fields), STRANGER)
        assert len(made) == 32
        assert made != request_id_of(read(*fields), STRANGER)
    bad = (
        [b"X-Request-ID: a b"],
        [b"X-Request-ID:"],
        [b"X-Request-ID: " + b"a" * 129],
        [b"X-Request-ID: a", b"X-Request-ID: b"],
        [],
    )
    for fields in bad:
        assert re.fullmatch(b"[0-9a-f]{32}", request_id_of(read(*fields), FRIEND))


def test_a_thousand_request_ids_are_a_thousand_different_ones():
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(b"[0-9a-f]{32}", one) for one in ids)
    assert len({one[:8] for one in ids}) > 990, "every digit of them is drawn"


def test_a_response_reaches_the_client_like_this():
    head = to_client(
        b"Server:app", b"Content-Length: 5", b"Keep-Alive: timeout=5", b"X-Request-ID: theirs", b"Set-Cookie: a=b"
    )
    assert head == (
        b"HTTP/1.1 200 OK\r\n"
        b"Server: app\r\n"
        b"Set-Cookie: a=b\r\n"
        b"X-Request-ID: 0123456789abcdef\r\n"
        b"Via: 1.1 lbproxy\r\n"
        b"Content-Length: 5\r\n"
        b"\r\n"
    )


def test_via_is_appended_and_the_reason_kept():
    head = to_client(b"Via: 1.0 a", b"Via: 1.1 b", start=b"HTTP/1.0 404 nicht \xe4 da")
    assert head.startswith(b"HTTP/1.1 404 nicht \xe4 da\r\n")
    assert b"\r\nVia: 1.0 a, 1.1 b, 1.1 lbproxy\r\n" in head


@pytest.mark.parametrize(
    ("start", "fields", "asked", "framing"),
    [
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], GET, Framing.LENGTH),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], OLD_GET, Framing.LENGTH),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], GET, Framing.CHUNKED),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], OLD_GET, Framing.CLOSE),
        (b"HTTP/1.0 200 OK", [], GET, Framing.CHUNKED),
        (b"HTTP/1.0 200 OK", [], OLD_GET, Framing.CLOSE),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], HEAD, Framing.NONE),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], HEAD, Framing.NONE),
        (b"HTTP/1.1 204 No Content", [b"Content-Length: 5"], GET, Framing.NONE),
        (b"HTTP/1.1 304 Not Modified", [b"Content-Length: 5"], GET, Framing.NONE),
        (b"HTTP/1.1 100 Continue", [], GET, Framing.NONE),
    ],
)
def test_the_client_is_told_the_end_of_a_body_in_its_own_version(start, fields, asked, framing):
    assert framing_for_client(read_response(response(*fields, start=start), Lines()), asked) is framing


@pytest.mark.parametrize(
    ("start", "fields", "asked", "stays", "tail"),
    [
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], GET, True, [b"Content-Length: 5"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], GET, False, [b"Content-Length: 5", b"Connection: close"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], OLD_GET, True, [b"Content-Length: 5", b"Connection: keep-alive"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], OLD_GET, False, [b"Content-Length: 5", b"Connection: close"]),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], GET, True, [b"Transfer-Encoding: chunked"]),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], OLD_GET, True, [b"Connection: close"]),
        (b"HTTP/1.1 200 OK", [b"Connection: close"], GET, True, [b"Transfer-Encoding: chunked"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], HEAD, True, [b"Content-Length: 5"]),
        (b"HTTP/1.1 204 No Content", [b"Content-Length: 5"], GET, True, []),
        (b"HTTP/1.1 204 No Content", [b"Transfer-Encoding: chunked"], GET, False, [b"Connection: close"]),
        (b"HTTP/1.1 304 Not Modified", [b"Content-Length: 5"], GET, True, [b"Content-Length: 5"]),
        (b"HTTP/1.1 100 Continue", [b"Content-Length: 5"], GET, False, []),
        (
            b"HTTP/1.1 101 Switching Protocols",
            [b"Connection: Upgrade", b"Upgrade: websocket"],
            GET,
            True,
            [b"Connection: Upgrade", b"Upgrade: websocket"],
        ),
    ],
)
def test_the_last_lines_frame_the_response_and_say_whether_we_stay(start, fields, asked, stays, tail):
    lines = to_client(*fields, start=start, asked=asked, stays=stays).split(b"\r\n")
    assert lines[lines.index(b"Via: 1.1 lbproxy") + 1 :] == [*tail, b"", b""]


@each(ACCEPTED_REQUESTS, [STRANGER, FRIEND])
def test_what_we_send_to_a_backend_we_would_accept_ourselves(raw, client):
    head = read_request(raw, Lines(), 100)
    upgrades = passed_upgrades(head, ("websocket", "foo"))
    sent = request_to_backend(head, client, ID, upgrades)
    again = read_request(sent, Lines(), 200)
    confirm_request(sent, again)
    for fact in (
        "method",
        "target",
        "host",
        "length",
        "chunked",
        "expects_continue",
        "wants_trailers",
        "lines",
    ):
        assert getattr(again, fact) == getattr(head, fact)
    assert again.upgrades == upgrades


@each(ACCEPTED_RESPONSES, [GET, OLD_GET, HEAD])
def test_what_we_send_to_a_client_we_would_accept_ourselves(raw, asked):
    head = read_response(raw, Lines())
    sent = response_to_client(head, asked, ID, framing_for_client(head, asked), keep_alive=True)
    again = read_response(sent, Lines())
    confirm_response(sent, again, asked.method)
    assert (again.status, again.reason, again.lines, again.upgrade) == (
        head.status,
        head.reason,
        head.lines,
        head.upgrade,
    )


@given(
    st.lists(
        st.sampled_from(
            [*CLAIMS, b"A:b", b"Connection: A, X-Forwarded-For, Host", b"TE: trailers", b"Content-Length: 3"]
        )
    )
)
def test_h11_finds_each_of_our_fields_once(fields):
    for client in (STRANGER, FRIEND):
        peer = h11.Connection(h11.SERVER)
        peer.receive_data(request_to_backend(read(*fields), client, ID))
        event = peer.next_event()
        assert isinstance(event, h11.Request)
        names = [name for name, _ in event.headers]
        for name in (b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"via"):
            assert names.count(name) == 1
        assert not {b"connection", b"proxy", b"x_forwarded_for", b"x_real_ip"} & set(names)
        if client is STRANGER:
            assert not {b"x-real-ip", b"forwarded", b"x-forwarded-port"} & set(names)
