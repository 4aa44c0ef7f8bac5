"""h11's second opinion: it agrees with what head.py accepts, and with nothing that somebody bent."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.http_corpus import ACCEPTED_REQUESTS, ACCEPTED_RESPONSES, request, response
from support.http_heads import bent, requests, responses

from lbproxy.wire.head import Lines, Refused, RequestHead, ResponseHead, head_end, read_request, read_response
from lbproxy.wire.http1 import confirm_request, confirm_response

SMALL = Lines(max_lines=64)  # shared by all examples, so that lines are remembered, and forgotten, in between


@pytest.mark.parametrize("raw", ACCEPTED_REQUESTS)
def test_h11_accepts_every_request_that_we_accept_with_the_same_meaning(raw):
    confirm_request(raw, read_request(raw, Lines(), 100))


@pytest.mark.parametrize("raw", ACCEPTED_RESPONSES)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"BREW"])
def test_h11_accepts_every_response_that_we_accept_with_the_same_meaning(raw, method):
    confirm_response(raw, read_response(raw, Lines()), method)


def test_a_head_longer_than_h11_likes_is_confirmed():
    raw = request(*(b"A%d: " % number + b"b" * 1000 for number in range(60)))
    confirm_request(raw, read_request(raw, Lines(), 100))


def test_a_version_in_a_field_is_left_alone():
    raw = request(b"Via-Like: GET / HTTP/1.5", start=b"GET /a HTTP/1.3")
    confirm_request(raw, read_request(raw, Lines(), 100))


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        request(b"Host: b"),
        request(b"Content-Length: +3"),
        request(b"Transfer-Encoding: gzip"),
        request(b"A : b"),
        request()[:-2],
        b"\x16\x03\x01",
    ],
)
def test_what_h11_refuses_is_refused(raw):
    with pytest.raises(Refused) as caught:
        confirm_request(raw, read_request(request(), Lines(), 100))
    assert caught.value.status == 400


@pytest.mark.parametrize("raw", [b"HTTP/1.1 abc\r\n\r\n", response(b"Content-Length: x"), response()[:-2]])
def test_what_h11_refuses_of_a_backend_is_refused(raw):
    with pytest.raises(Refused) as caught:
        confirm_response(raw, read_response(response(), Lines()), b"GET")
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "change",
    [
        {"method": b"HEAD"}, {"target": b"/b"}, {"host": b"b"}, {"minor": 0}, {"keep_alive": False}, {"length": 4},
        {"length": None}, {"chunked": True}, {"expects_continue": True},
    ],
)  # fmt: skip
def test_another_reading_of_a_request_is_not_confirmed(change):
    raw = request(b"Content-Length: 3", start=b"POST /a HTTP/1.1")
    with pytest.raises(Refused) as caught:
        confirm_request(raw, replace(read_request(raw, Lines(), 100), **change))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "change", [{"status": 201}, {"reason": b"Ok"}, {"keep_alive": False}, {"length": 4}, {"chunked": True}]
)
def test_another_reading_of_a_response_is_not_confirmed(change):
    raw = response(b"Content-Length: 3")
    with pytest.raises(Refused) as caught:
        confirm_response(raw, replace(read_response(raw, Lines()), **change), b"GET")
    assert caught.value.status == 502


@pytest.mark.parametrize("start", [b"CONNECT a:1 HTTP/1.1", b"GET /other HTTP/1.1"])
def test_what_makes_h11_pause_hangs_nobody(start):
    raw = request(b"Connection: upgrade", b"Upgrade: x", start=start)
    with pytest.raises(Refused):
        confirm_request(raw, read_request(request(), Lines(), 100))


def request_holds(raw: bytes) -> RequestHead | None:
    """Whatever read_request accepts, h11 accepts with the same meaning. A refused head says so and nothing else."""
    try:
        end = head_end(raw, 0, 16_384)
        if end < 0:
            return None
        head = read_request(raw[:end], SMALL, 100)
    except Refused as refused:
        assert refused.status in (400, 417, 431, 501, 505)  # noqa: PT017
        return None
    assert head == read_request(raw[:end], Lines(), 100)
    confirm_request(raw[:end], head)
    return head


def response_holds(raw: bytes, method: bytes) -> ResponseHead | None:
    try:
        end = raw.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in raw else len(raw)
        head = read_response(raw[:end], SMALL)
    except Refused as refused:
        assert refused.status == 502  # noqa: PT017
        return None
    assert head == read_response(raw[:end], Lines())
    confirm_response(raw[:end], head, method)
    return head


quick = settings(max_examples=600, deadline=None)
long = settings(max_examples=25_000, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(bent(requests))
def test_two_readers_agree_on_every_request_that_is_forwarded(raw):
    request_holds(raw)


@quick
@given(bent(responses), st.sampled_from([b"GET", b"HEAD", b"POST"]))
def test_two_readers_agree_on_every_response_that_is_forwarded(raw, method):
    response_holds(raw, method)


@pytest.mark.soak
@pytest.mark.timeout(900)
@long
@given(bent(requests))
def test_two_readers_agree_on_very_many_requests(raw):
    request_holds(raw)


@pytest.mark.soak
@pytest.mark.timeout(900)
@long
@given(bent(responses), st.sampled_from([b"GET", b"HEAD", b"POST"]))
def test_two_readers_agree_on_very_many_responses(raw, method):
    response_holds(raw, method)


def test_the_generated_heads_are_neither_all_good_nor_all_bad():
    verdicts = set()

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(bent(requests), bent(responses))
    def look(asked: bytes, answered: bytes) -> None:
        verdicts.add(("request", request_holds(asked) is not None))
        verdicts.add(("response", response_holds(answered, b"GET") is not None))

    look()
    assert len(verdicts) == 4
