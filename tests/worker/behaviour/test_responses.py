"""HTTP.md, "Responses from a backend": what the client sees of each, the same from both lanes."""

import re
from dataclasses import dataclass, replace
from functools import partial

import pytest
import trio
from support.http_corpus import ACCEPTED_RESPONSES, REFUSED_RESPONSES, response
from support.peer import Ended, Message, Peer
from support.proxy import EMPTY, GET, LANES, OK, Script, answering, get, lanes, proxy
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.telemetry.access import AccessRecord

ASKING = {
    "get": GET,
    "head": get(b"/", method=b"HEAD"),
    "old": get(b"/", minor=0),
    "old_kept": get(b"/", b"Connection: keep-alive", minor=0),
    "closing": get(b"/", b"Connection: close"),
    "trailers": get(b"/", b"TE: trailers"),
}
_id = re.compile(rb"\r\nX-Request-ID: [0-9a-f]{32}(?=\r\n)|(?<=request )[0-9a-f]{32}(?=\n)")
_status = re.compile(rb"HTTP/1.. ([0-9]{3})")
_length = re.compile(rb"content-length:\s*([0-9]+)", re.IGNORECASE)
CHUNKS = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"


def complete(head: bytes, method: bytes = b"GET") -> tuple[bytes, bool]:
    """With the body that it tells of; whether the end of the connection ends it."""
    status = int(_status.match(head)[1])  # type: ignore[index]
    if 100 <= status < 200 and status != 101:
        return head + OK, False
    if status in (101, 204, 304) or method == b"HEAD":
        return head, False
    if b"hunked" in head:
        return head + CHUNKS, False
    if length := _length.search(head):
        return head + b"x" * int(length[1]), False
    return head + b"until the end", True


def saying(data: bytes, *, closes: bool = False, step: int = 0) -> Script:
    """Each request is answered with this."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.dribble(data, step or len(data))
            if closes:
                return

    return script


def told(record: AccessRecord) -> tuple[object, ...]:
    """What does not change from run to run."""
    return (
        *(record.head, record.status, record.request_bytes, record.response_bytes),
        *(record.served_by, record.client, record.error),
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """By the client, and in the access log."""

    raw: bytes
    read: list[Message]  # without the framing
    kept: bool
    records: tuple[tuple[object, ...], ...]


async def seen(lane: str, script: Script, asked: bytes, times: int = 2) -> Seen:
    """Asked again and again, on one connection as long as it is kept."""
    method = asked.partition(b" ")[0]
    async with proxy(lane, script) as lb:
        client = await lb.client()
        raw = b""
        read = []
        for _ in range(times):
            await client.send(asked)
            while True:
                message = await client.response(method)
                raw += _id.sub(b"", message.raw)
                fields = [field for field in message.fields if field[0] != b"x-request-id"]
                read.append(replace(message, fields=fields, body=_id.sub(b"", message.body), raw=b""))
                if message.status >= 200:
                    break
            kept = message.get(b"connection") != b"close"
            if not kept:
                assert await client.rest() == b""
                assert not client.is_reset
                client = await lb.client()
        records = await lb.wait_records(times)
        return Seen(raw, read, kept, tuple(map(told, records)))


@pytest.mark.parametrize("kind", ASKING)
@pytest.mark.parametrize("row", range(len(ACCEPTED_RESPONSES)), ids=[repr(row[:36]) for row in ACCEPTED_RESPONSES])
@trio_test(timeout_s=8)
async def test_both_lanes_answer_the_same_bytes(row: int, kind: str) -> None:
    asked = ASKING[kind]
    data, closes = complete(ACCEPTED_RESPONSES[row], asked.partition(b" ")[0])
    both = [await seen(lane, saying(data, closes=closes), asked) for lane in LANES]
    assert both[0] == both[1]
    if kind in ("get", "old"):
        for lane, step in (("express", 1), ("task", 7)):  # how it is cut into chunks may differ, what it says does not
            dribbled = await seen(lane, saying(data, closes=closes, step=step), asked)
            assert replace(dribbled, raw=b"") == replace(both[0], raw=b"")


@lanes
@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        (
            "get",
            response(b"content-length:5", b"Keep-Alive: timeout=5", b"Connection: X-Hop", b"X-Hop: 1", b"X: 2")
            + b"hello",
            b"HTTP/1.1 200 OK\r\nX: 2\r\nVia: 1.1 lbproxy\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "get",
            response(b"Transfer-Encoding: chunked", b"Trailer: X-Sum") + CHUNKS,
            b"HTTP/1.1 200 OK\r\nVia: 1.1 lbproxy\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        ),
        (
            "trailers",
            response(b"Transfer-Encoding: chunked") + CHUNKS,
            b"HTTP/1.1 200 OK\r\nVia: 1.1 lbproxy\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n",
        ),
        (
            "old",
            response(b"Transfer-Encoding: chunked") + CHUNKS,
            b"HTTP/1.1 200 OK\r\nVia: 1.1 lbproxy\r\nConnection: close\r\n\r\nabcde",
        ),
        (
            "old_kept",
            OK,
            b"HTTP/1.1 200 OK\r\nVia: 1.1 lbproxy\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
        ),
        (
            "closing",
            OK,
            b"HTTP/1.1 200 OK\r\nVia: 1.1 lbproxy\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        ),
        ("head", response(b"Content-Length: 5"), b"HTTP/1.1 200 OK\r\nVia: 1.1 lbproxy\r\nContent-Length: 5\r\n\r\n"),
        (
            "get",
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 3\r\n\r\nHTTP/1.0 204 None\r\n"
            b"Content-Length: 5\r\nVia: 1.1 origin\r\nConnection: keep-alive\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.1 lbproxy\r\n\r\n"
            b"HTTP/1.1 204 None\r\nVia: 1.1 origin, 1.1 lbproxy\r\n\r\n",
        ),
        (
            "old_kept",
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 304 Same\r\nVia: 1.1 lbproxy\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
        ),
    ],
    ids=[
        "length",
        "chunks",
        "trailers",
        "chunks_to_old",
        "old_kept",
        "closing",
        "head",
        "interim",
        "no_interim_to_old",
    ],
)
@trio_test(timeout_s=8)
async def test_what_the_client_gets_is_this(lane: str, kind: str, answer: bytes, expected: bytes) -> None:
    result = await seen(lane, saying(answer), ASKING[kind], times=3)
    assert result.raw == expected * 3


@lanes
@pytest.mark.parametrize("step", [0, 1], ids=["at_once", "byte_by_byte"])
@trio_test(timeout_s=20)
async def test_an_answer_that_is_no_http_is_a_502(lane: str, step: int) -> None:
    behind: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.dribble(behind[-1], step or len(behind[-1]))
        await peer.wait_ended()  # lbproxy lets go of it

    wrong = []
    async with proxy(lane, script) as lb:
        client = await lb.client()
        for row in REFUSED_RESPONSES:
            behind.append(row.raw)
            await client.send(GET)
            answer = None
            with trio.move_on_after(2):
                answer = await client.answer()
            if answer is None or answer.status != 502 or answer.get(b"connection") is not None:
                wrong.append(f"{row}: {answer}")
                client = await lb.client()
        assert not wrong, wrong
        assert len(lb.backends[0].peers) == len(REFUSED_RESPONSES)
        records = await lb.wait_records(len(REFUSED_RESPONSES))
        assert {(record.status, record.backend) for record in records} == {(502, "web.1")}
        assert lb.count(Counter.FAILED) == lb.count(Counter.REQUESTS) == len(REFUSED_RESPONSES)


@lanes
@trio_test(timeout_s=8)
async def test_a_response_head_may_have_64_kib_and_256_lines(lane: str) -> None:
    head = response(b"Content-Length: 0", b"A: ")
    full = response(b"Content-Length: 0", b"A: " + b"x" * (65_536 - len(head)))
    over = response(b"Content-Length: 0", b"A: " + b"x" * (65_537 - len(head)))
    many = response(b"Content-Length: 0", *(b"A: b",) * 255)
    too_many = response(b"Content-Length: 0", *(b"A: b",) * 256)
    async with proxy(lane, answering(full, over, many, too_many, EMPTY)) as lb:
        statuses = [(await lb.ask(GET)).status for _ in range(2)]
        lb.backends[0].script = answering(many, too_many)
        statuses += [(await lb.ask(GET)).status for _ in range(2)]
        assert statuses == [200, 502, 200, 502]


@lanes
@trio_test(timeout_s=8)
async def test_at_most_sixteen_interim_responses_are_passed_on(lane: str) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with proxy(lane, saying(hint * 16 + OK)) as lb:
        for expected in (200, 502, 502):
            client = await lb.client()
            await client.send(GET)
            interim = 0
            while (answer := await client.response()).status < 200:
                interim += 1
            assert (answer.status, interim) == (expected, 16)
            lb.context.backends.close()
            lb.backends[0].script = saying(hint * (17 if expected == 200 else 5000))


@lanes
@trio_test(timeout_s=8)
async def test_bytes_behind_a_response_reach_nobody(lane: str) -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    for answer in (OK, EMPTY, response(b"Transfer-Encoding: chunked") + CHUNKS, b"HTTP/1.1 204 None\r\n\r\n"):
        async with proxy(lane, saying(answer + extra)) as lb:
            for _ in range(4):
                assert b"poison" not in (await lb.ask(GET)).raw
            assert len(lb.backends[0].peers) == 4
            for peer in lb.backends[0].peers:
                await peer.wait_ended()


@lanes
@trio_test(timeout_s=8)
async def test_bytes_that_come_later_than_their_response_reach_nobody(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await late.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await peer.wait_ended()
        gone.set()

    async with proxy(lane, script) as lb:
        for _ in range(3):
            late, gone = trio.Event(), trio.Event()
            assert (await lb.ask(GET)).body == b"hello"
            late.set()
            await gone.wait()
        assert len(lb.backends[0].peers) == 3


@lanes
@trio_test(timeout_s=8)
async def test_a_backend_that_speaks_before_it_is_asked_is_not_believed(lane: str) -> None:
    """Its words can only be an answer to a request that it had not read."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await peer.wait_ended()

    async with proxy(lane, script) as lb:
        client = await lb.client()
        for _ in range(5):
            await client.send(GET)
            assert (await client.answer()).body == b"hello"
            await trio.sleep(0.01)


@lanes
@pytest.mark.parametrize("answer", ["head", "no_content", "not_modified"])
@trio_test(timeout_s=8)
async def test_a_body_where_none_may_be_is_not_taken_for_the_next_answer(lane: str, answer: str) -> None:
    data = {"head": OK, "no_content": OK.replace(b"200", b"204"), "not_modified": OK.replace(b"200", b"304")}[answer]
    method = b"HEAD" if answer == "head" else b"GET"
    async with proxy(lane, saying(data)) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(get(b"/", method=method))
            assert (await client.answer(method)).body == b""
        assert not client.buffer


CHUNKED = response(b"Transfer-Encoding: chunked")
CUT_SHORT: dict[str, tuple[bytes, bytes]] = {  # what the client hears of, and what comes before the end
    "length": (response(b"Content-Length: 100") + b"hello", b" not all"),
    "chunks": (CHUNKED + b"5\r\nhello\r\n", b""),
    "in_a_chunk": (CHUNKED + b"6\r\nhello", b""),
    "before_the_last_crlf": (CHUNKED + b"5\r\nhello\r\n", b"0\r\n"),
    "bad_chunk": (CHUNKED + b"5\r\nhello\r\n", b"zz\r\n0\r\n\r\n"),
    "bad_end_of_chunk": (CHUNKED + b"5\r\nhello", b"0\r\n\r\n"),
    "long": (response(b"Content-Length: 1000000") + b"hello" + bytes(200_000), bytes(200_000)),
}


@lanes
@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("kind", CUT_SHORT)
@pytest.mark.parametrize("asking", ["get", "old_kept"])
@trio_test(timeout_s=8)
async def test_what_breaks_off_in_its_body_is_cut_and_never_ends_well(
    lane: str, asking: str, kind: str, how: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CUT_SHORT[kind][0])
        await heard.wait()
        await peer.send(CUT_SHORT[kind][1])
        if how == "reset":
            peer.reset()

    async with proxy(lane, script) as lb:
        heard = trio.Event()
        client = await lb.client()
        await client.send(ASKING[asking])
        await client.until(b"hello")
        heard.set()
        client.buffer[:] = client.received
        with pytest.raises(Ended):
            await client.answer()
        (record,) = await lb.wait_records(1)
        assert (record.status, record.backend) == (200, "web.1")
        assert record.error in ("http_response_incomplete", "http_protocol_error")
        assert lb.count(Counter.FAILED) == 1


@pytest.mark.parametrize("kind", CUT_SHORT)
@trio_test(timeout_s=8)
async def test_both_lanes_say_the_same_of_a_cut(kind: str) -> None:
    said = []
    for lane in LANES:
        async with proxy(lane, saying(b"".join(CUT_SHORT[kind]), closes=True)) as lb:
            client = await lb.client()
            await client.send(ASKING["closing"])
            await client.rest()
            said.append(told((await lb.wait_records(1))[0]))
    assert said[0] == said[1]


@lanes
@trio_test(timeout_s=8)
async def test_a_body_that_the_end_ends_is_not_ended_by_a_reset(lane: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\npart")
        await go_on.wait()
        peer.reset()

    for asked in (GET, get(b"/", minor=0)):
        go_on = trio.Event()
        async with proxy(lane, script) as lb:
            client = await lb.client()
            await client.send(asked)
            await client.until(b"part")
            go_on.set()
            rest = await client.rest()
            assert b"\r\n0\r\n" not in rest
            assert client.is_reset == (asked != GET)


@lanes
@trio_test(timeout_s=8)
async def test_pages_suit_who_asks(lane: str) -> None:
    async with proxy(lane, answering(b"rubbish\r\n\r\n")) as lb:
        ask = partial(get, b"/")
        page = await lb.ask(ask(b"Accept: application/json"))
        assert page.get(b"content-type") == b"application/json; charset=utf-8"
        assert page.get(b"proxy-status") == b"edge; error=http_protocol_error"
        assert (page.get(b"x-request-id") or b"?") in page.body
        assert (await lb.ask(ask(b"Accept: text/html"))).body.startswith(b"<!doctype html>")
        assert (await lb.ask(ask())).get(b"content-type") == b"text/plain; charset=utf-8"
        head = await lb.ask(get(b"/", method=b"HEAD"), b"HEAD")
        assert int(head.get(b"content-length") or 0) > 0
