"""HTTP.md, "Requests": what is accepted reaches the backend in our spelling and framing, the same from both lanes."""

import re
import time
from dataclasses import replace
from email.utils import parsedate_to_datetime

import pytest
import trio.testing
from support.http_corpus import ACCEPTED_REQUESTS
from support.peer import Peer
from support.proxy import GET, LANES, OK, Setup, answering, get, lanes, post, post_chunked, proxy, wait_until
from support.trio_test import trio_test

ENDLESS = b"9999999999999999999"
_id = re.compile(rb"\r\nX-Request-ID: [0-9a-f]{32}(?=\r\n)")
_length = re.compile(rb"content-length:\s*([0-9]+)", re.IGNORECASE)


def complete(head: bytes) -> bytes:
    """With the body that it tells of."""
    if b"hunk" in head.lower():
        return head + b"3;ext=1\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n"
    length = _length.search(head)
    return head + b"x" * int(length[1]) if length else head


ROWS = [complete(head) for head in ACCEPTED_REQUESTS if ENDLESS not in head]


async def polite(peer: Peer) -> None:
    """Tells who asks to go on."""
    while True:
        head = await peer.head()
        if head.get(b"expect"):
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer._with_body(head, until_end=False)
        await peer.send(OK)


async def forwarded(lane: str, data: bytes, *, step: int = 0, twice: bool = False, trusted: bool = False) -> bytes:
    """What the backend received, but for the request ids."""
    setup = Setup(trusted=("127.0.0.0/8",) if trusted else ())
    async with proxy(lane, polite, setup=setup) as lb:
        client = await lb.client()
        for _ in range(2 if twice else 1):
            await client.dribble(data, step or len(data))
            answer = await client.answer(data.lstrip().split(b" ")[0])
            assert answer.status == 200, (data, answer.raw)
        received = lb.backends[0].received
        without_ids, ids = _id.subn(b"", received)
        assert trusted or ids == received.count(b" HTTP/1.1\r\n")
        ours_is_https = lb.is_tls and b"Proto: https" not in data
        return without_ids.replace(b"Proto: https", b"Proto: http") if ours_is_https else without_ids


@pytest.mark.parametrize("row", range(len(ROWS)), ids=[repr(row[:40]) for row in ROWS])
@trio_test(timeout_s=8)
async def test_both_lanes_forward_the_same_bytes(row: int) -> None:
    data = ROWS[row]
    seen = {await forwarded(lane, data) for lane in LANES}
    seen.add(await forwarded("express", data, step=1))
    assert len(seen) == 1
    closes = b"close" in data or (b"HTTP/1.0" in data and b"Keep-Alive" not in data)
    if not closes:
        twice = {await forwarded(lane, data, twice=True) for lane in LANES}
        assert twice == {seen.pop() * 2}
    trusted = {await forwarded(lane, data, trusted=True) for lane in LANES}
    assert len(trusted) == 1


FRAMED = b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
WITH_HOST = FRAMED + b"X-Forwarded-Host: a.example\r\nVia: 1.1 lbproxy\r\n"


@lanes
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (GET, b"GET / HTTP/1.1\r\nHost: a.example\r\n" + WITH_HOST + b"\r\n"),
        (
            post(b"abc", b"content-type:text/plain", b"Connection: X-Mine, close", b"X-Mine: 1"),
            b"POST / HTTP/1.1\r\nHost: a.example\r\ncontent-type: text/plain\r\n"
            + WITH_HOST
            + b"Content-Length: 3\r\n\r\nabc",
        ),
        (
            post_chunked(
                *(b"abc", b"de"), trailers=b"X-Sum: 1\r\nContent-Length: 9\r\nhost: evil\r\nAuthorization: x\r\n"
            ),
            b"POST / HTTP/1.1\r\nHost: a.example\r\n"
            + WITH_HOST
            + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n",
        ),
        (
            get(b"/a?b", b"X-Forwarded-For: 6.6.6.6", b"X_Forwarded_For: 6.6.6.6", b"X-Real-IP: 6.6.6.6", b"Proxy: x",
                b"Forwarded: for=6.6.6.6", b"X-Request-ID: mine", b"Via: 1.0 fred", b"Keep-Alive: 5", b"TE: gzip",
                b"Content_Length: 7", b"Trailer: X-Sum", b"Upgrade: h2c", b"HTTP2-Settings: x"),
            b"GET /a?b HTTP/1.1\r\nHost: a.example\r\n" + FRAMED
            + b"X-Forwarded-Host: a.example\r\nVia: 1.0 fred, 1.1 lbproxy\r\n\r\n",
        ),
        (
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \r\n" + FRAMED + b"Via: 1.1 lbproxy\r\n\r\n",
        ),
        (
            get(b"http://b.example/x", b"TE: trailers"),
            b"GET /x HTTP/1.1\r\nHost: b.example\r\n" + FRAMED
            + b"X-Forwarded-Host: b.example\r\nVia: 1.1 lbproxy\r\nTE: trailers\r\n\r\n",
        ),
    ],
    ids=["get", "post", "chunked", "untrusted", "old", "absolute"],
)  # fmt: skip
@trio_test(timeout_s=8)
async def test_what_the_backend_gets_is_this(lane: str, data: bytes, expected: bytes) -> None:
    assert await forwarded(lane, data) == expected


@lanes
@trio_test(timeout_s=8)
async def test_a_trusted_peer_is_believed(lane: str) -> None:
    fields = (b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https", b"X-Request-ID: theirs", b"X-Real-IP: 1.2.3.4")
    expected = (
        b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 1.2.3.4, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: a.example\r\nX-Real-IP: 1.2.3.4\r\nX-Request-ID: theirs\r\nVia: 1.1 lbproxy\r\n\r\n"
    )
    for twice in (False, True):
        assert await forwarded(lane, get(b"/", *fields), trusted=True, twice=twice) == expected * (1 + twice)


@lanes
@trio_test(timeout_s=8)
async def test_every_request_has_an_id_of_its_own_and_the_client_is_told(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        told = set()
        for _ in range(5):
            await client.send(GET)
            told.add((await client.answer()).get(b"x-request-id"))
        heads = lb.backends[0].received.split(b"\r\n\r\n")[:-1]
        assert {_id.search(head)[0].split()[-1] for head in heads} == told  # type: ignore[index]
        assert len(told) == 5
        assert {record.request_id for record in await lb.wait_records(5)} == told


@lanes
@trio_test(timeout_s=8)
async def test_a_length_that_nobody_can_send_is_forwarded_as_it_is(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        await client.send(get(b"/", b"Content-Length: " + ENDLESS, method=b"POST") + bytes(100_000))
        backend = lb.backends[0]
        await wait_until(lambda: len(backend.received) > 100_000)
        assert b"\r\nContent-Length: " + ENDLESS + b"\r\n" in backend.received


@lanes
@trio_test(timeout_s=8)
async def test_a_body_is_never_replayed_with_the_next_head(lane: str) -> None:
    """The same head again, in a packet of its own: its body is the one that comes, not the one that came."""
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        whole = post(b"old body")
        head = whole.removesuffix(b"old body")
        for body in (b"old body", b"new body", b"3rd body"):
            await client.dribble(head, len(head))
            await client.dribble(body, 3)
            assert (await client.answer()).status == 200
        await client.send(head)
        await trio.testing.wait_all_tasks_blocked(0.03)
        received = lb.backends[0].received
        assert received.count(b"old body") == received.count(b"new body") == received.count(b"3rd body") == 1
        assert len(received.split(b"\r\n\r\n")) == 4
        assert received.endswith(b"3rd body")


@lanes
@trio_test(timeout_s=8)
async def test_heads_that_differ_by_a_line_are_told_apart(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        asked = [GET, get(b"/b"), GET, GET, post(b"abc"), GET, post(b"xyz"), post(b"four"), get(b"/", b"A: b"), GET]
        for data in asked:
            await client.send(data)
            assert (await client.answer()).status == 200
        received = [part.partition(b"\r\n")[0] for part in lb.backends[0].received.split(b"\r\n\r\n")]
        assert received == [
            *(b"GET / HTTP/1.1", b"GET /b HTTP/1.1", b"GET / HTTP/1.1", b"GET / HTTP/1.1", b"POST / HTTP/1.1"),
            *(b"abcGET / HTTP/1.1", b"POST / HTTP/1.1", b"xyzPOST / HTTP/1.1", b"fourGET / HTTP/1.1"),
            *(b"GET / HTTP/1.1", b""),
        ]


UNDATED = [
    OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,
    b"HTTP/1.1 200 OK\r\nETag: $\r\nContent-Length: 5\r\n\r\nhello",
]


@lanes
@pytest.mark.parametrize("answer", UNDATED)
@trio_test(timeout_s=8)
async def test_an_answer_without_a_date_gets_one_however_often_it_repeats(lane: str, answer: bytes) -> None:
    numbers = iter(range(100))

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer.replace(b"$", b"%d" % next(numbers)))

    async with proxy(lane, script, setup=Setup(dates=True)) as lb:
        client = await lb.client()
        for _ in range(40):
            await client.send(GET)
            head = await client.answer()
            if head.status == 103:
                assert head.get(b"date") is None
                head = await client.answer()
            date = head.get(b"date")
            assert date is not None
            assert abs(parsedate_to_datetime(date.decode()).timestamp() - time.time()) < 3


@lanes
@trio_test(timeout_s=8)
async def test_a_date_of_the_backend_stays_and_our_own_answers_have_one(lane: str) -> None:
    dated = OK.replace(b"\r\n\r\n", b"\r\ndate: then\r\n\r\n")
    async with proxy(lane, answering(dated), setup=Setup(dates=True)) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(GET)
            assert (await client.answer()).get(b"date") == b"then"
        await client.send(b"nonsense\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 400
        assert answer.get(b"date") is not None
        lb.publish()
        lb.router.apply(replace(lb.router.table, epoch=99, pools=()))
        answer = await lb.ask(GET)
        assert answer.status == 404
        assert answer.get(b"date") is not None
