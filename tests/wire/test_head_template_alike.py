"""Head templates, with Hypothesis looking for a head that they read or make otherwise than head.py and headers.py."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy
from support.alike import Alike, alike_requests, alike_responses
from support.proxy import get

from lbproxy.wire.head import (
    Lines,
    Refused,
    RequestHead,
    ResponseHead,
    head_end,
    read_request,
    read_response,
    response_head_end,
)
from lbproxy.wire.head_template import HeadTemplates, RequestTemplate, ResponseTemplate
from lbproxy.wire.headers import ClientFacts, Framing, request_to_backend, response_to_client

CLIENTS = (
    ClientFacts(b"192.0.2.1", False, b"http"),
    ClientFacts(b"", False, b"https"),
    ClientFacts(b"192.0.2.2", True, b"http"),
)
ID = b"0123456789abcdef"
LIMIT = 16 * 1024
# The method decides the framing, and no more (test_head_template.py has every combination).
ASKED = [
    read_request(get(b"/", method=method, minor=minor), Lines(), 9) for method, minor in ((b"GET", 1), (b"HEAD", 0))
]
MADE_FOR = list(product(ASKED, Framing, (True, False)))
LINES = Lines(max_lines=256)  # shared by all examples: what is remembered changes no reading (test_http1.py)

many = pytest.mark.parametrize(
    "examples", [2_500, pytest.param(200_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)


def read_whole_request(text: bytes) -> tuple[RequestHead, int] | None:
    try:
        end = head_end(text, 0, LIMIT)
        return (read_request(text[:end], LINES, 100), end) if end > 0 else None
    except Refused:
        return None


def read_whole_response(text: bytes) -> tuple[ResponseHead, int] | None:
    try:
        end = response_head_end(text, 0)
        return (read_response(text[:end], LINES), end) if end > 0 else None
    except Refused:
        return None


def request_reading(templates: HeadTemplates[RequestTemplate], text: bytes) -> str:
    """What became of it, after all that a template says of it was found true."""
    plain = read_whole_request(text)
    found = templates.read(text)
    if found is None:
        return "refused" if plain is None else "not read"
    assert plain is not None, "a template reads what is refused"
    head, end = plain
    template, values, where = found
    match = template.head(values)
    assert (match, where, template.field_lines) == (head, end, text[:end].count(b"\r\n") - 2)
    for client in CLIENTS:
        made = request_to_backend(head, client, ID)
        assert request_to_backend(match, client, ID) == made
        if not client.trusted:
            assert template.to_backend(values, client, ID) == made
    return "read"


def response_reading(templates: HeadTemplates[ResponseTemplate], text: bytes) -> str:
    plain = read_whole_response(text)
    found = templates.read(text)
    if found is None:
        return "refused" if plain is None else "not read"
    assert plain is not None, "a template reads what is refused"
    head, end = plain
    template, values, where = found
    like = template.sample
    assert (where, template.length(values)) == (end, head.length)
    for fact in ("status", "reason", "minor", "keep_alive", "chunked", "upgrade", "event_stream"):
        assert getattr(like, fact) == getattr(head, fact), fact
    for asked, framing, keep in MADE_FOR:
        assert template.to_client(values, asked, ID, framing, keep) == response_to_client(
            head, asked, ID, framing, keep
        )
    return "read"


def learned(
    make: type[RequestTemplate] | type[ResponseTemplate], alike: Alike, read_whole: Callable[[bytes], object]
) -> Any:
    templates = HeadTemplates(make)  # type: ignore[type-var]
    for raw in alike.learned:
        if read_whole(raw) is not None:
            templates.learn(raw)
    return templates


def look_at_many(alike: SearchStrategy[Alike], examples: int, look: Callable[[Alike], list[str]]) -> None:
    """And see to it that what is looked at is worth it: templates came into being, and met all sorts of heads."""
    seen: Counter[str] = Counter()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(alike)
    def count(some: Alike) -> None:
        readings = look(some)
        seen.update(readings)
        seen["templates"] += "read" in readings

    count()
    assert seen["templates"] > examples / 4, seen
    assert seen["read"] > examples / 2, seen
    assert seen["refused"] > examples / 4, seen
    assert seen["not read"] > examples / 4, seen


@pytest.mark.long
@many
def test_what_a_template_reads_of_requests_and_makes_of_them_is_what_others_do(examples: int) -> None:
    def look(some: Alike) -> list[str]:
        templates = learned(RequestTemplate, some, read_whole_request)
        return [request_reading(templates, text) for text in some.later]

    look_at_many(alike_requests, examples, look)


@pytest.mark.long
@many
def test_what_a_template_reads_of_answers_and_makes_of_them_is_what_others_do(examples: int) -> None:
    def look(some: Alike) -> list[str]:
        templates = learned(ResponseTemplate, some, read_whole_response)
        return [response_reading(templates, text) for text in some.later]

    look_at_many(alike_responses, examples, look)
