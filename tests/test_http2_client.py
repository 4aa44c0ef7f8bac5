"""One request over HTTP/2, to a server on python-hyper's h2."""

from functools import partial

import outcome
import pytest
import trio
from support.http2_answering import Said, answering
from support.trio_test import trio_test

from lbproxy.http2_client import Http2Answer, Http2Ask, NoHttp2Answer, ask
from lbproxy.http_client import connect
from lbproxy.wire.head import Refused

OK = [(":status", "200"), ("content-type", "text/plain")]
GET = Http2Ask("GET", "/a?b", "a.example", (("X-Probe", "1"),))


async def asked(said: Said, request: Http2Ask = GET, body_s: float = 1.0) -> tuple[Http2Answer, dict[str, str], bytes]:
    seen: list[tuple[dict[str, str], bytes]] = []

    def answer(fields: dict[str, str], body: bytes) -> Said:
        seen.append((fields, body))
        return said

    with trio.fail_after(10):
        async with answering(answer) as address, await connect(address) as stream:
            result = await outcome.acapture(partial(ask, stream, request, most_bytes=100, body_s=body_s))
    return result.unwrap(), *seen[0]


@trio_test
async def test_the_request_arrives_and_the_answer_comes_back_with_its_trailers() -> None:
    answer, fields, body = await asked(Said(OK, b"hello", [("x-sum", "5")]), Http2Ask("POST", "/", "a", (), b"hi"))
    assert (fields[":method"], fields[":path"], fields[":scheme"], fields[":authority"]) == ("POST", "/", "http", "a")
    assert body == b"hi"
    assert (answer.status, answer.body, answer.fields["x-sum"]) == (200, b"hello", "5")


@trio_test
async def test_names_are_in_lower_case_and_a_head_may_be_all_there_is() -> None:
    answer, fields, body = await asked(Said([(":status", "404")]))
    assert (fields["x-probe"], fields[":path"], body) == ("1", "/a?b", b"")
    assert (answer.status, answer.body) == (404, b"")


@trio_test
async def test_of_a_long_body_only_its_beginning_is_read() -> None:
    answer, _, _ = await asked(Said(OK, b"x" * 5000))
    assert answer.body == b"x" * 100


@trio_test
async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    answer, _, _ = await asked(Said(OK, b"part", is_open=True), body_s=0.05)
    assert (answer.status, answer.body) == (200, b"part")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Said(reset=7), "the stream was reset (REFUSED_STREAM)"),
        (Said(raw=b"HTTP/1.1 400 Bad Request\r\n\r\n"), "this is not HTTP/2: "),
        (Said(raw=b""), "closed without an answer"),
    ],
)
@trio_test
async def test_what_is_no_answer_is_told_in_words(said: Said, why: str) -> None:
    with pytest.raises(NoHttp2Answer) as raised:
        await asked(said)
    assert str(raised.value).startswith(why)


@trio_test
async def test_a_head_that_http_does_not_allow_is_refused() -> None:
    with pytest.raises(Refused, match="two Content-Length lines"):
        await asked(Said([*OK, ("content-length", "1"), ("content-length", "2")], is_open=True))
