"""What lbproxy forwards is read by others as it was meant: by h11, and by Node's llhttp in its strict mode.

Requests as a backend gets them, answers as a client gets them, with a body and with the next message behind it, so
that a reader who finds another end is found out.
"""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.http_corpus import ACCEPTED_REQUESTS, ACCEPTED_RESPONSES, request
from support.http_heads import bent, request_head, response_head
from support.second_reader import Fields, NodeReader, Read, h11_answer, h11_request

from lbproxy.wire.body import chunk, last_chunk
from lbproxy.wire.head import (
    Lines,
    Refused,
    RequestHead,
    ResponseHead,
    head_end,
    passed_upgrades,
    read_request,
    read_response,
    response_head_end,
)
from lbproxy.wire.headers import ClientFacts, Framing, framing_for_client, request_to_backend, response_to_client

pytestmark = pytest.mark.peer("node")

STRANGER = ClientFacts(b"192.0.2.1", False, b"http")
FRIEND = ClientFacts(b"2001:db8::2", True, b"https")
ID = b"0123456789abcdef"
BODY = b"5\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n0\r\n\r\n"
LONGEST = 1000  # bodies of known length beyond this are not sent: their head must be read all the same
TRAILERS = [b"X-Sum: 7", b"X-Empty:"]
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# llhttp knows only registered methods; of others it says so, and reads nothing.
KNOWN_METHODS = frozenset(b"GET HEAD POST PUT DELETE OPTIONS TRACE PATCH".split())

METHODS = (b"GET", b"HEAD")
VERSIONS = (b"1.1", b"1.0")


@pytest.fixture(scope="module")
def node() -> Iterator[NodeReader]:
    with NodeReader() as reader:
        yield reader


def fields_of(head: bytes) -> Fields:
    """Of a head that lbproxy made: one line is one field."""
    split = (line.partition(b":") for line in head[:-4].split(b"\r\n")[1:])
    return [(name.lower(), value.strip(b" \t")) for name, _, value in split]


def request_is_read_as_meant(node: NodeReader, head: RequestHead, client: ClientFacts) -> None:
    if head.method not in KNOWN_METHODS:
        head.method = b"GET"
    upgrades = passed_upgrades(head, ("websocket",))
    sent = request_to_backend(head, client, ID, upgrades)
    body, wire, trailers = _body(head.length, head.chunked)
    due = Read(
        (head.method, head.target), fields_of(sent), body, fields_of(b"\r\n".join([b"", *trailers, b"\r\n"])), True
    )
    second = Read((b"GET", b"/next"), [(b"host", b"next")], b"", [], True)
    if upgrades:
        assert node.requests(sent + BODY).messages == [_upgraded(due, BODY)]
    elif head.length is not None and head.length > LONGEST:
        (read,) = node.requests(sent).messages
        assert (read.start, read.fields, read.complete) == (due.start, due.fields, False)
    else:
        reading = node.requests(sent + wire + NEXT)
        assert (reading.messages, reading.error) == ([due, second], None)
        read, rest = h11_request(sent + wire + NEXT)
        assert _without_order(read) == _without_order(due)
        assert rest == NEXT


def answer_is_read_as_meant(node: NodeReader, head: ResponseHead, method: bytes, version: bytes) -> None:
    asked = read_request(request(start=method + b" / HTTP/" + version), Lines(), 9)
    framing = framing_for_client(head, asked)
    if framing is Framing.LENGTH and head.length is not None and head.length > LONGEST:
        head.length = 0
    sent = response_to_client(head, asked, ID, framing, keep_alive=False)
    body, wire, trailers = _body(head.length if framing is Framing.LENGTH else None, framing is Framing.CHUNKED)
    if framing is Framing.CLOSE:
        body = wire = BODY
    start = (b"%d" % head.status, head.reason)
    due = Read(start, fields_of(sent), body, fields_of(b"\r\n".join([b"", *trailers, b"\r\n"])), True)
    if head.status == 101:
        if head.upgrade == b"websocket":  # any other 101 is nobody's answer: lbproxy never sends it on
            assert node.answer(sent + BODY, method).messages == [_upgraded(due, BODY)]
            assert h11_answer(sent + BODY, method, upgrade=True)[0].upgrade == BODY
        return
    final = [Read((b"200", b"OK"), [(b"content-length", b"2")], b"ok" if method == b"GET" else b"", [], True)]
    if head.status < 200:
        reading = node.answer(sent + (FINAL if method == b"GET" else FINAL[:-2]), method)
        assert (reading.messages, reading.error) == ([due, *final], None)
        return
    reading = node.answer(sent + wire, method)
    assert (reading.messages, reading.error) == ([due], None)
    read, rest = h11_answer(sent + wire, method)
    assert _without_order(read) == _without_order(due)
    assert rest == b""


def _body(length: int | None, chunked: bool) -> tuple[bytes, bytes, list[bytes]]:
    """A body, as it goes over the wire in our framing, and its trailers. It looks like a request."""
    if chunked:
        return BODY, chunk(BODY[:7]) + chunk(b"") + chunk(BODY[7:]) + last_chunk(TRAILERS), TRAILERS
    body = (BODY * 40)[: length if length is not None and length <= LONGEST else 0]
    return body, body, []


def _upgraded(due: Read, rest: bytes) -> Read:
    """Node does not say of an upgrade whether it is complete."""
    return Read(due.start, due.fields, b"", [], due.start[0] == b"101", rest)


def _without_order(read: Read) -> object:
    """h11 puts Host first."""
    return read.start, sorted(read.fields), read.body, read.trailers, read.complete


@pytest.mark.parametrize("client", [STRANGER, FRIEND], ids=["stranger", "friend"])
def test_every_accepted_request_is_forwarded_so_that_others_read_the_same(
    node: NodeReader, client: ClientFacts
) -> None:
    for raw in ACCEPTED_REQUESTS:
        end = head_end(raw, 0, 1 << 16)
        request_is_read_as_meant(node, read_request(raw[:end], Lines(), 100), client)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", METHODS)
def test_every_accepted_answer_is_forwarded_so_that_others_read_the_same(
    node: NodeReader, method: bytes, version: bytes
) -> None:
    for raw in ACCEPTED_RESPONSES:
        answer_is_read_as_meant(node, read_response(raw, Lines()), method, version)


@settings(max_examples=250)
@given(raw=bent(request_head), client=st.sampled_from([STRANGER, FRIEND]))
def test_requests_of_any_kind_are_forwarded_so_that_others_read_the_same(
    node: NodeReader, raw: bytes, client: ClientFacts
) -> None:
    try:
        end = head_end(raw, 0, 1 << 16)
        head = read_request(raw[:end], Lines(), 100)
    except Refused:
        return
    request_is_read_as_meant(node, head, client)


@settings(max_examples=250)
@given(raw=bent(response_head), method=st.sampled_from(METHODS), version=st.sampled_from(VERSIONS))
def test_answers_of_any_kind_are_forwarded_so_that_others_read_the_same(
    node: NodeReader, raw: bytes, method: bytes, version: bytes
) -> None:
    try:
        end = response_head_end(raw, 0)
        head = read_response(raw[:end], Lines())
    except Refused:
        return
    answer_is_read_as_meant(node, head, method, version)


@pytest.mark.soak
@pytest.mark.timeout(900)
@settings(max_examples=10_000)
@given(raw=bent(request_head), answered=bent(response_head), client=st.sampled_from([STRANGER, FRIEND]))
def test_very_many_messages_are_forwarded_so_that_others_read_the_same(
    node: NodeReader, raw: bytes, answered: bytes, client: ClientFacts
) -> None:
    try:
        request_is_read_as_meant(node, read_request(raw[: head_end(raw, 0, 1 << 16)], Lines(), 100), client)
        answer_is_read_as_meant(
            node, read_response(answered[: response_head_end(answered, 0)], Lines()), b"GET", b"1.1"
        )
    except Refused:
        return
