"""Whatever way a head takes through lbproxy, the other side gets the same bytes of it.

The task lane reads each head and makes what is sent; the express lane does so, too, or remembers the head whole
(wire/head_cache.py), or reads it by a template (wire/head_template.py).
Generated heads, bent ones among them, go all four ways.
"""

from collections import Counter

import pytest
from hypothesis import given, settings
from support.http_heads import bent, request_head, response_head
from support.proxy import get

from lbproxy.wire.head import Lines, Refused, head_end, read_request, read_response, response_head_end
from lbproxy.wire.head_cache import HeadCache
from lbproxy.wire.head_template import HeadTemplates, RequestTemplate, ResponseTemplate
from lbproxy.wire.headers import ClientFacts, Framing, framing_for_client, request_to_backend, response_to_client
from lbproxy.wire.http1 import confirm_request, confirm_response

STRANGER = ClientFacts(b"192.0.2.1", False, b"http")
FRIEND = ClientFacts(b"2001:db8::2", True, b"https")
SHOWN = ClientFacts(b"192.0.2.3", False, b"https", certificate=b"X-Client-Cert-Verified: 0\r\n")
RFC_7239 = [ClientFacts(b"2001:db8::2", trusted, b"https", writes_forwarded=True) for trusted in (False, True)]
ID = b"0123456789abcdef"
LIMIT = 16 * 1024
EXPRESS = Lines(max_lines=256)  # the memory of a worker
REPEATS = HeadCache()
ASKED = [read_request(get(b"/", method=how, minor=minor), Lines(), 9) for how, minor in ((b"GET", 1), (b"HEAD", 0))]

many = pytest.mark.parametrize(
    "examples", [4_000, pytest.param(200_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)


def request_ways(raw: bytes) -> list[str]:
    """The ways that this head took."""
    try:
        raw = raw[: head_end(raw, 0, LIMIT)]
        asked = read_request(raw, Lines(), 100)
        confirm_request(raw, asked)
    except Refused:
        with pytest.raises(Refused):
            read_request(raw[: head_end(raw, 0, LIMIT)], EXPRESS, 100)
        return ["refused"]
    if asked.chunked or asked.expects_continue or asked.upgrades:
        return ["task"]
    head = read_request(raw, EXPRESS, 100)
    templates = HeadTemplates(RequestTemplate)
    for like in (raw.replace(asked.target, b"/like", 1), raw):
        templates.learn(like)
    match = templates.read(raw)
    for client in (STRANGER, FRIEND, SHOWN, *RFC_7239):
        due = request_to_backend(asked, client, ID)
        known = REPEATS.request(raw, head, client)
        assert request_to_backend(head, client, ID) == due
        ours = b"" if client.varies else client.forwarded
        assert b"".join((known.before, ours, known.between, ID, known.behind)) == due
        if match is not None:
            template, values, _ = match
            assert request_to_backend(template.head(values), client, ID) == due
            assert client.varies or template.to_backend(values, client, ID) == due
    return ["express", "template"] if match is not None else ["express"]


def answer_ways(raw: bytes) -> list[str]:
    try:
        raw = raw[: response_head_end(raw, 0)]
        due = read_response(raw, Lines())
        confirm_response(raw, due, b"GET")
    except Refused:
        with pytest.raises(Refused):
            read_response(raw[: response_head_end(raw, 0)], EXPRESS)
        return ["refused"]
    if due.status < 200:
        return ["task"]
    head = read_response(raw, EXPRESS)
    known = REPEATS.reply(raw, EXPRESS)
    templates = HeadTemplates(ResponseTemplate)
    templates.learn(raw)
    templates.learn(raw)
    match = templates.read(raw)
    for asked in ASKED:
        framing = framing_for_client(head, asked)
        for keep in (True, False) if framing is not Framing.CLOSE else (False,):
            made = response_to_client(due, asked, ID, framing, keep)
            before, behind = known.for_client(asked, framing, keep)
            assert response_to_client(head, asked, ID, framing, keep) == before + ID + behind == made
            if match is not None:
                assert match[0].to_client(match[1], asked, ID, framing, keep) == made
    return ["express", "template"] if match is not None else ["express"]


@pytest.mark.long
@many
def test_a_backend_gets_the_same_bytes_from_both_lanes(examples: int) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=examples)
    @given(bent(request_head))
    def look(raw: bytes) -> None:
        seen.update(request_ways(raw))

    look()
    assert all(seen[way] > examples / 40 for way in ("refused", "task", "express", "template")), seen


@pytest.mark.long
@many
def test_a_client_gets_the_same_bytes_from_both_lanes(examples: int) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=examples)
    @given(bent(response_head))
    def look(raw: bytes) -> None:
        seen.update(answer_ways(raw))

    look()
    assert all(seen[way] > examples / 40 for way in ("refused", "task", "express", "template")), seen
