"""HTTP heads under any bytes: nothing but Refused comes out, every cut reads alike, and what is forwarded is read by
h11, and by ourselves, as what was meant."""

from dataclasses import replace

from lbproxy.wire.forwarded import Trust, address_of, hops_of, node_of
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
from lbproxy.wire.headers import (
    ClientFacts,
    Framing,
    client_of,
    framing_for_client,
    request_to_backend,
    response_to_client,
)
from lbproxy.wire.http1 import confirm_request, confirm_response

LIMIT = 16 * 1024
MAX_FIELDS = 100
REFUSALS = (400, 417, 431, 501, 505)
ID = b"0123456789abcdef"
WARM = Lines(max_lines=64)  # shared by all inputs, so that lines are remembered, and forgotten, in between
STRANGER = ClientFacts(b"192.0.2.1", False, b"http")
TRUST = Trust(("192.0.2.0/24", "10.0.0.0/8"))
FRIEND = ClientFacts(b"192.0.2.2", True, b"http", trust=TRUST)
RFC_7239 = [ClientFacts(b"192.0.2.3", trusted, b"https", True, TRUST) for trusted in (False, True)]


def cuts_of(data: bytes) -> tuple[list[int], bytes]:
    """The first bytes of an input say where the rest of it is cut: a number of cuts, and their distances."""
    count = data[0] & 7 if data else 0
    raw, at, cuts = data[1 + count :], 0, []
    for step in data[1 : 1 + count]:
        at += step
        if at < len(raw):
            cuts.append(at)
    return cuts, raw


def pieces_of(data: bytes) -> tuple[list[bytes], bytes]:
    """The pieces of an input, and the whole."""
    cuts, raw = cuts_of(data)
    ends = [*cuts, len(raw)]
    return [raw[start:end] for start, end in zip([0, *cuts], ends, strict=True)], raw


def request_head(data: bytes) -> None:
    cuts, raw = cuts_of(data)
    head, end = _read_request([len(raw)], raw)
    for lengths in ([*cuts, len(raw)], range(1, min(len(raw), 300) + 1)):
        if lengths[-1:] == [len(raw)] or len(raw) <= 300:
            assert _read_request(lengths, raw) == (head, end), "another cut, another reading"
    if head is None or end < 0:
        return
    assert head == read_request(raw[:end], Lines(), MAX_FIELDS), "what is remembered changes the reading"
    confirm_request(raw[:end], head)
    for client in (STRANGER, FRIEND, *RFC_7239):
        forwarded_request(head, client)


def forwarded_request(head: RequestHead, client: ClientFacts) -> bytes:
    """The head that goes to the backend: it means what was meant, for us and for h11."""
    upgrades = passed_upgrades(head, ("websocket", "foo"))
    sent = request_to_backend(head, client, ID, upgrades)
    assert head_end(sent, 0, 4 * LIMIT) == len(sent)
    again = read_request(sent, Lines(), 2 * MAX_FIELDS)
    for name in ("method", "target", "host", "length", "chunked", "lines", "wants_trailers"):
        assert getattr(again, name) == getattr(head, name), f"{name} is not what it was"
    assert again.upgrades == upgrades
    assert again.expects_continue == head.expects_continue
    assert again.minor == 1
    assert again.keep_alive
    assert again.fields[b"x-request-id"] == [ID]
    if not client.trusted:
        assert again.fields[b"x-forwarded-for"] == [client.ip]
        assert (b"forwarded" in again.fields) == client.writes_forwarded
        assert b"x-real-ip" not in again.fields
    who = client_of(head, client)
    assert who == client.ip or (client.trusted and address_of(who) == who)
    if client.writes_forwarded:
        hops = hops_of(again.fields[b"forwarded"])
        assert hops
        assert (hops[-1].node, hops[-1].host, hops[-1].proto) == (node_of(client.ip), head.host, client.proto)
        assert client_of(again, replace(client, ip=b"192.0.2.9", trusted=True)) == who
    confirm_request(sent, again)
    return sent


def _read_request(lengths: object, raw: bytes) -> tuple[RequestHead | None, int]:
    """What becomes of `raw` when it grows to these `lengths`: the head and its end, (None, 0) for refused, (None, -1)
    for not all there."""
    looked, end = 0, -1
    try:
        for length in lengths:  # type: ignore[attr-defined]
            end = head_end(raw[:length], looked, LIMIT)
            if end >= 0:
                return read_request(raw[:end], WARM, MAX_FIELDS), end
            looked = length
    except Refused as refused:
        assert refused.status in REFUSALS, refused  # noqa: PT017
        return None, 0
    return None, end


def response_head(data: bytes) -> None:
    cuts, raw = cuts_of(data)
    head, end = _read_response([len(raw)], raw)
    assert _read_response([*cuts, len(raw)], raw) == (head, end), "another cut, another reading"
    if head is None or end < 0:
        return
    assert head == read_response(raw[:end], Lines()), "what is remembered changes the reading"
    confirm_response(raw[:end], head, b"GET")
    for start in (b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"HEAD / HTTP/1.1"):
        request = read_request(start + b"\r\nHost: a\r\n\r\n", Lines(), 9)
        for keep_alive in (True, False):
            forwarded_response(head, request, keep_alive)


def forwarded_response(head: ResponseHead, request: RequestHead, keep_alive: bool) -> bytes:
    """The head that goes to the client: one message, framed as it will be sent."""
    framing = framing_for_client(head, request)
    sent = response_to_client(head, request, ID, framing, keep_alive)
    assert response_head_end(sent, 0, 8 * LIMIT) == len(sent)
    again = read_response(sent, Lines())
    for name in ("status", "reason", "lines", "upgrade"):
        assert getattr(again, name) == getattr(head, name), f"{name} is not what it was"
    assert again.chunked == (framing is Framing.CHUNKED)
    assert again.fields[b"x-request-id"] == [ID]
    if framing is Framing.LENGTH:
        assert again.length == head.length
    elif framing is not Framing.NONE:
        assert again.length is None
    if head.status >= 200:
        assert again.keep_alive == (keep_alive and framing is not Framing.CLOSE)
    confirm_response(sent, again, request.method)
    return sent


def _read_response(lengths: list[int], raw: bytes) -> tuple[ResponseHead | None, int]:
    looked, end = 0, -1
    try:
        for length in lengths:
            end = response_head_end(raw[:length], looked)
            if end >= 0:
                return read_response(raw[:end], WARM), end
            looked = length
    except Refused as refused:
        assert refused.status == 502, refused  # noqa: PT017
        return None, 0
    return None, end
