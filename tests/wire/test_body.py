"""Bodies: where they end, at every cut, and with h11 as the oracle."""

import contextlib
import tracemalloc

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each import each
from support.http_corpus import request, response

from lbproxy.wire.body import Body, chunk, last_chunk, request_body, response_body
from lbproxy.wire.head import Lines, Refused, read_request, read_response

CHUNKED = read_request(request(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1"), Lines(), 100)
CHUNKED_BACK = read_response(response(b"Transfer-Encoding: chunked"), Lines())


def with_length(length: int) -> Body:
    head = read_request(request(b"Content-Length: %d" % length, start=b"POST / HTTP/1.1"), Lines(), 100)
    return request_body(head, 0)


def answer(*fields: bytes, method: bytes = b"GET", start: bytes = b"HTTP/1.1 200 OK") -> Body:
    return response_body(read_response(response(*fields, start=start), Lines()), method)


def fed_whole(body: Body, data: bytes) -> bytes:
    return body.feed(data)


def fed_byte_by_byte(body: Body, data: bytes) -> bytes:
    return b"".join(body.feed(data[at : at + 1]) for at in range(len(data)))


FEEDS = pytest.mark.parametrize("feed", [fed_whole, fed_byte_by_byte])

WHOLE = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Sum: 1\r\nHost: evil\r\nX-More:\t2 \r\n\r\n"


@each(range(len(WHOLE) + 1))
def test_a_chunked_body_reads_the_same_at_every_cut(cut):
    body = request_body(CHUNKED, 0)
    payload = body.feed(WHOLE[:cut])
    assert body.done == (cut == len(WHOLE))
    payload += body.feed(WHOLE[cut:] + b"GET /next")
    assert payload == b"hello world"
    assert body.done
    assert body.rest == b"GET /next"
    assert body.trailers == [b"X-Sum: 1", b"X-More: 2"]
    body.eof()


@pytest.mark.parametrize("cut", range(8))
def test_a_body_of_known_length_ends_where_it_says(cut):
    body = with_length(5)
    whole = b"hello!!"
    assert body.feed(whole[:cut]) + body.feed(whole[cut:]) == b"hello"
    assert (body.done, body.remaining, body.rest) == (True, 0, b"!!")
    body.eof()


def test_a_request_without_framing_has_no_body():
    body = request_body(read_request(request(start=b"POST / HTTP/1.1"), Lines(), 100), 0)
    assert body.done
    assert body.feed(b"GET") + body.feed(b" /") == b""
    assert body.rest == b"GET /"


@each(
    [
        b"5 \r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"\t5\r\nhello\r\n0\r\n\r\n",
        b"5\t;a\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n",
        b"5h\r\nhello\r\n0\r\n\r\n", b"g\r\nhello\r\n0\r\n\r\n",
        b"00000000000000005\r\nhello\r\n0\r\n\r\n", b"00000000000000000\r\n\r\n", b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n", b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\x00\r\nhello\r\n0\r\n\r\n",
        b"5;a\x7f\r\nhello\r\n0\r\n\r\n", b"5;" + b"a" * 257 + b"\r\nhello\r\n0\r\n\r\n", b"5 ;a\r\nhello\r\n0\r\n\r\n",
        b"5,6\r\nhello\r\n0\r\n\r\n",
        b"\xb25\r\nhello\r\n0\r\n\r\n", b"5_0\r\nhello\r\n0\r\n\r\n", b"0\r\nA b: c\r\n\r\n", b"0\r\nA : c\r\n\r\n",
        b"0\r\n A: c\r\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n", b"0\r\nA\r\n\r\n", b"0\r\n: b\r\n\r\n", b"0\r\nA: \x00\r\n\r\n",
        b"0\r\nA: b\nC: d\r\n\r\n", b"0\r\n\n", b"0\n\r\n",
        b"0\r\nA: b\n\n", b"0\r\n\rX", b";a\r\n\r\n", b"0;\x01\r\n\r\n",
    ],
    [fed_whole, fed_byte_by_byte],
)  # fmt: skip
def test_chunks_that_two_could_read_differently_are_refused(text, feed):
    for body, status in ((request_body(CHUNKED, 0), 400), (response_body(CHUNKED_BACK, b"GET"), 502)):
        with pytest.raises(Refused) as caught:
            feed(body, text)
        assert caught.value.status == status
        assert not body.done


@FEEDS
@pytest.mark.parametrize(
    ("text", "payload"),
    [
        (b"0\r\n\r\n", b""),
        (b"0000000000000000\r\n\r\n", b""),
        (b"00000a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n000\r\n\r\n", b"0123456789"),
        (b"1;\r\nx\r\n0;last\r\n\r\n", b"x"),
        (b'1;a="\xe4 \t";b\r\nx\r\n0\r\n\r\n', b"x"),
        (b"1;" + b"a" * 256 + b"\r\nx\r\n0\r\n\r\n", b"x"),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    ],
)
def test_odd_but_plain_chunks_are_read(text, payload, feed):
    body = request_body(CHUNKED, 0)
    assert feed(body, text) == payload
    assert body.done
    assert body.rest == b""


@FEEDS
def test_trailers_that_frame_route_authenticate_or_belong_to_a_hop_are_dropped(feed):
    unsafe = [
        b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Upgrade",
        b"Authorization",
        b"Proxy-Authorization", b"Cookie", b"Set-Cookie", b"X-Forwarded-For", b"X_Forwarded_For", b"Content_Length",
        b"Forwarded", b"Via",
        b"X-Request-ID", b"Proxy", b"Expect", b"Content-Encoding", b"Content-Type", b"Cache-Control",
        b"WWW-Authenticate", b"Client-Cert", b"X-Client-Cert-Subject", b"X_Client_Cert_Verified",
    ]  # fmt: skip
    body = request_body(CHUNKED, 0)
    feed(body, b"0\r\nX-Sum: a\r\n" + b"".join(name + b": 1\r\n" for name in unsafe) + b"Grpc-Status:0\r\n\r\n")
    assert body.trailers == [b"X-Sum: a", b"Grpc-Status: 0"]


@FEEDS
def test_trailers_over_the_limit_are_refused(feed):
    text = b"0\r\nA: " + b"b" * 200
    for body, status in (
        (request_body(CHUNKED, 0, 100), 431),
        (response_body(CHUNKED_BACK, b"GET", 100), 502),
    ):
        with pytest.raises(Refused) as caught:
            feed(body, text + b"\r\n\r\n")
        assert caught.value.status == status
    body = request_body(CHUNKED, 0)
    with pytest.raises(Refused):
        feed(body, b"0\r\n" + b"A: b\r\n" * 3000)


@pytest.mark.parametrize("size", [99, 100, 101])
def test_the_limit_of_trailers_is_the_same_at_every_cut(size):
    text = b"0\r\nA: " + b"b" * (size - 3) + b"\r\n\r\n"
    for cut in range(len(text)):
        body = request_body(CHUNKED, 0, 100)
        with pytest.raises(Refused) if size > 100 else contextlib.nullcontext():
            body.feed(text[:cut])
            body.feed(text[cut:])
        assert body.done == (size <= 100)


def test_a_body_over_the_limit_is_refused_at_once_or_when_it_passes():
    head = read_request(request(b"Content-Length: 11", start=b"POST / HTTP/1.1"), Lines(), 100)
    with pytest.raises(Refused) as caught:
        request_body(head, 10)
    assert caught.value.status == 413
    assert request_body(head, 11).remaining == 11
    body = request_body(CHUNKED, 10)
    assert body.feed(b"5\r\nhello\r\n5\r\nworld\r\n") == b"helloworld"
    with pytest.raises(Refused) as caught:
        body.feed(b"1\r\n!")
    assert caught.value.status == 413


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints", b"204 No Content", b"304 Not Modified"])
def test_some_answers_never_have_a_body(status):
    for field in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
        assert answer(field, start=b"HTTP/1.1 " + status).done
    assert answer(start=b"HTTP/1.1 " + status).done


def test_an_answer_to_head_has_no_body():
    assert answer(b"Content-Length: 5", method=b"HEAD").done
    assert answer(b"Transfer-Encoding: chunked", method=b"HEAD").done
    assert answer(method=b"HEAD").done
    assert not answer(b"Content-Length: 5").done


def test_a_body_without_framing_ends_with_the_connection():
    body = answer()
    assert (body.until_eof, body.done, body.remaining) == (True, False, None)
    assert body.feed(b"a") + body.feed(b"0\r\n\r\n") == b"a0\r\n\r\n"
    assert not body.done
    body.eof()
    assert body.done


@pytest.mark.parametrize(
    ("body", "begun"),
    [
        (with_length(5), b"hell"),
        (with_length(1), b""),
        (request_body(CHUNKED, 0), b"5\r\nhello\r\n0\r\n"),
        (request_body(CHUNKED, 0), b"5\r\nhello\r\n"),
        (request_body(CHUNKED, 0), b""),
    ],
)
def test_a_request_body_cut_short_is_not_a_body(body, begun):
    body.feed(begun)
    with pytest.raises(Refused) as caught:
        body.eof()
    assert caught.value.status == 400


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_response_body_cut_short_is_never_a_clean_end(field):
    body = answer(field)
    body.feed(b"1\r\na")
    with pytest.raises(Refused) as caught:
        body.eof()
    assert (caught.value.status, caught.value.token) == (502, "http_response_incomplete")


def test_our_own_chunks_are_read_back():
    body = request_body(CHUNKED, 0)
    sent = chunk(b"hello") + chunk(b"") + chunk(b" " * 5000) + last_chunk([b"X-Sum: 1", b"X-B:"])
    assert body.feed(sent) == b"hello" + b" " * 5000
    assert body.done
    assert body.trailers == [b"X-Sum: 1", b"X-B:"]
    assert last_chunk() == b"0\r\n\r\n"


def test_a_million_tiny_chunks_take_no_memory():
    body = request_body(CHUNKED, 0)
    piece = b"1;x\r\na\r\n" * 8192
    total = sum(len(body.feed(piece)) for _ in range(121))
    tracemalloc.start()
    total += sum(len(body.feed(piece)) for _ in range(2))
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 123 * 8192 > 1_000_000
    assert peak < 1_000_000
    assert left < 10_000
    body.feed(b"0\r\n\r\n")
    assert body.done


def test_an_endless_size_line_is_refused_after_a_few_hundred_bytes():
    body = request_body(CHUNKED, 0)
    with pytest.raises(Refused):
        fed_byte_by_byte(body, b"5;" + b"a" * 300)


sizes = st.binary(max_size=40)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b c"', b";\t"])
trailer_lines = st.sampled_from([b"X-A: b\r\n", b"x-b:\r\n", b"X-C:  c \r\n"])


@given(st.lists(st.tuples(sizes, extensions, st.booleans())), st.lists(trailer_lines, max_size=3), st.data())
def test_h11_reads_the_same_chunks(chunks, trailers, data):
    text = b""
    for payload, extension, upper in chunks:
        if payload:
            size = b"%X" % len(payload) if upper else b"%x" % len(payload)
            text += size + extension + b"\r\n" + payload + b"\r\n"
    text += b"0\r\n" + b"".join(trailers) + b"\r\n"
    body = request_body(CHUNKED, 0)
    ours, at = b"", 0
    while at < len(text):
        step = data.draw(st.integers(1, 30))
        ours += body.feed(text[at : at + step])
        at += step
    assert body.done
    theirs, names = h11_reads(text)
    assert theirs == ours
    assert names == [line.partition(b":")[0].lower() for line in body.trailers]


@given(
    st.lists(
        st.sampled_from([b"5", b"\r\n", b"hello", b";a", b"0", b" ", b"\n", b"\r", b"A: b", b"1", b"x"]), max_size=12
    )
)
def test_what_we_read_h11_reads_too(pieces):
    text = b"".join(pieces)
    body = request_body(CHUNKED, 0)
    try:
        payload = body.feed(text)
    except Refused:
        return
    if body.done:
        assert h11_reads(text.removesuffix(body.rest) if body.rest else text)[0] == payload


def h11_reads(text: bytes) -> tuple[bytes, list[bytes]]:
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + text)
    assert isinstance(peer.next_event(), h11.Request)
    payload = b""
    while isinstance(event := peer.next_event(), h11.Data):
        payload += event.data
    assert isinstance(event, h11.EndOfMessage)
    return payload, [name for name, _ in event.headers]
