"""HTTP.md, "Requests": what is refused gets its status and a soft end of the connection; no backend sees any of it."""

from functools import partial

import pytest
import trio
from support.http_corpus import REFUSED_REQUESTS, Refusal, request
from support.peer import Ended, Peer
from support.proxy import GET, OK, Proxy, Setup, answering, get, lanes, post, proxy
from support.trio_test import trio_test

from lbproxy.settings import ListenerLimits, ListenerTimeouts
from lbproxy.worker.express import record
from lbproxy.worker.task import exchange

BEHIND = b"GET /behind HTTP/1.1\r\nHost: a.example\r\n\r\n"
EXPECTING = request(b"Expect: 100-continue", b"Content-Length: 1", start=b"POST / HTTP/1.1")


def chunked(body: bytes, *fields: bytes) -> bytes:
    return request(b"Transfer-Encoding: chunked", *fields, start=b"POST /chunked HTTP/1.1") + body


def _bodies(status: int, *bodies: bytes) -> list[Refusal]:
    return [Refusal(f"body {body[:24]!r}", chunked(body), status) for body in bodies]


REFUSED_BODIES = [
    *_bodies(
        400,
        b"+3\r\nabc\r\n0\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n", b" 3\r\nabc\r\n0\r\n\r\n", b"3 \r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n", b"\r\nabc\r\n0\r\n\r\n", b";a=b\r\n", b"00000000000000003\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n", b"3\nabc\r\n0\r\n\r\n", b"3\rabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n", b"3\r\nabc\r0\r\n\r\n",
        b"3;" + b"x" * 300 + b"\r\nabc\r\n0\r\n\r\n", b"3;a\x00\r\nabc\r\n0\r\n\r\n", b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n", b"g\r\n", b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
        b"3\r\nabc\r\n0\r\nA : b\r\n\r\n", b"3\r\nabc\r\n0\r\nA: b\x00\r\n\r\n", b"3\r\nabc\r\n0\r\nA: b\n\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
    ),
    *_bodies(431, b"0\r\n" + b"A: b\r\n" * 4000 + b"\r\n"),
]  # fmt: skip

TOO_MUCH = [
    Refusal("head in one piece", get(b"/", b"A: " + b"x" * 17_000), 431),
    Refusal("head without end", b"GET / HTTP/1.1\r\nA: " + b"x" * 17_000, 431),
    Refusal("target", get(b"/" + b"x" * 17_000), 431),
    Refusal("field lines", get(b"/", *(b"A: b",) * 100), 431),
    Refusal("known length", post(b"x" * 1001), 413),
    Refusal("a length nobody will send", get(b"/", b"Content-Length: 9999999999999999999", method=b"POST"), 413),
    Refusal("chunks", chunked(b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n0\r\n\r\n"), 413),
    Refusal("one chunk", chunked(b"ffffffff\r\n"), 413),
    Refusal("length behind an expectation", post(b"x" * 1001, b"Expect: 100-continue"), 413),
]
ROW_S = 8.0  # an answer that takes longer has waited for something: the shortest time limit is 10 s
EVERYTHING = [*REFUSED_REQUESTS, *REFUSED_BODIES]


async def _refusal_of(client: Peer, status: int) -> str | None:
    """What is wrong with how it was refused."""
    answer = await client.answer()
    if answer.status != status:
        return f"{answer.status} instead of {status}"
    if answer.get(b"connection") != b"close":
        return "does not say that it closes"
    if not (answer.get(b"proxy-status") or b"").startswith(b"edge; error="):
        return "says nothing of why"
    rest = await client.rest()
    if rest:
        return f"{rest!r} behind the answer"
    return "reset, not closed" if client.is_reset else None


async def _each_refused(lb: Proxy, rows: list[Refusal], before: bytes, behind: bytes, step: int = 0) -> None:
    """`before`: what is asked, and answered, on the same connection; with `step` 0 everything is sent in one piece."""
    wrong: list[str] = []

    async def one(row: Refusal, alone: trio.Semaphore) -> None:
        async with alone:
            client = await lb.client()
            problem: str | None = "no answer"
            try:
                with trio.move_on_after(ROW_S):
                    async with trio.open_nursery() as sender:
                        sender.start_soon(partial(_say, client, before + row.raw + behind, step))
                        for _ in range(before.count(b"Host")):
                            answer = await client.answer()
                            assert (answer.status, answer.body) == (200, b"hello")
                        problem = await _refusal_of(client, row.status)
                        sender.cancel_scope.cancel()
            except* (Ended, AssertionError) as group:
                problem = repr(group.exceptions)
            client.close()
            if problem is not None:
                wrong.append(f"{row}: {problem}")

    alone = trio.Semaphore(8)
    async with trio.open_nursery() as nursery:
        for row in rows:
            nursery.start_soon(one, row, alone)
    assert not wrong, "\n".join(wrong)
    _backends_saw_only(lb, b"GET / HTTP/1.1")


async def _say(client: Peer, data: bytes, step: int) -> None:
    try:
        await client.dribble(data, step or len(data))
    except Ended:
        return  # it was refused before it had said everything


def _backends_saw_only(lb: Proxy, start: bytes) -> None:
    for peer in lb.backends[0].peers:
        *heads, rest = bytes(peer.received).split(b"\r\n\r\n")
        assert rest == b""
        assert {head.partition(b"\r\n")[0] for head in heads} <= {start}


@lanes
@pytest.mark.parametrize("before", [b"", GET, GET + GET], ids=["first", "behind_one", "behind_two"])
@trio_test(timeout_s=90)
async def test_what_is_refused_reaches_no_backend(lane: str, before: bytes) -> None:
    async with proxy(lane, answering(OK)) as lb:
        await _each_refused(lb, EVERYTHING, before, b"")
        assert len(lb.backends[0].peers) <= (8 if before else 0)


@lanes
@trio_test(timeout_s=90)
async def test_what_comes_behind_a_refused_request_is_not_looked_at(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        await _each_refused(lb, EVERYTHING, b"", BEHIND + EXPECTING)


@lanes
@trio_test(timeout_s=90)
async def test_what_is_refused_is_refused_however_it_comes(lane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (exchange, record):  # on a busy machine a body in single bytes may take longer, and streams
        monkeypatch.setattr(module, "EARLY_BODY_S", 60.0)
    async with proxy(lane, answering(OK)) as lb:
        await _each_refused(lb, [row for row in EVERYTHING if len(row.raw) < 1000], b"", b"", step=1)


@lanes
@trio_test(timeout_s=90)
async def test_a_kept_connection_is_as_strict_as_a_fresh_one(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        for row in EVERYTHING[::5]:
            client = await lb.client()
            await client.send(GET)
            assert (await client.answer()).status == 200
            await _say(client, row.raw, 0)
            assert await _refusal_of(client, row.status) is None, str(row)
            client.close()
        _backends_saw_only(lb, b"GET / HTTP/1.1")


@lanes
@trio_test(timeout_s=90)
async def test_too_much_is_refused(lane: str) -> None:
    setup = Setup(limits=ListenerLimits(body_bytes=1000))
    async with proxy(lane, answering(OK), setup=setup) as lb:
        await _each_refused(lb, TOO_MUCH, b"", b"")
        await _each_refused(lb, TOO_MUCH, GET, b"")
        await _each_refused(lb, TOO_MUCH, b"", b"", step=997)


@lanes
@trio_test(timeout_s=8)
async def test_a_head_at_the_limit_passes(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        head = get(b"/", b"A: ")
        full = get(b"/", b"A: " + b"x" * (16 * 1024 - len(head)))
        assert len(full) == 16 * 1024
        assert (await lb.ask(full)).status == 200
        assert (await lb.ask(get(b"/", *(b"A: b",) * 99))).status == 200


@lanes
@trio_test(timeout_s=8)
async def test_a_bad_chunk_behind_a_long_body_takes_the_request_back_from_the_backend(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        await client.send(chunked(b"20000\r\n" + bytes(0x20000) + b"\r\n"))
        backend = lb.backends[0]
        while not backend.peers:
            await trio.lowlevel.checkpoint()
        await client.send(b"zz\r\n")
        assert (await client.answer()).status == 400
        assert await client.rest() == b""
        await backend.peers[0].wait_ended()
        assert not backend.peers[0].received.endswith(b"\r\n0\r\n\r\n")


@lanes
@trio_test(timeout_s=8)
async def test_the_answer_outlives_what_the_client_is_still_sending(lane: str) -> None:
    """A close with bytes unread would reset the connection, and could swallow the answer on its way."""
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        await client.send(b"BAD\r\n\r\n")
        await client.send(bytes(30_000))
        assert (await client.answer()).status == 400
        await client.send(bytes(30_000))
        assert await client.rest() == b""
        assert not client.is_reset


@lanes
@trio_test(timeout_s=8)
async def test_who_goes_on_sending_after_a_refusal_is_let_go(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        await client.send(b"BAD\r\n\r\n")
        with pytest.raises(Ended):
            await client.send(bytes(1 << 26))


@lanes
@pytest.mark.parametrize("cut", [30, 66, 70, 85])
@trio_test(timeout_s=8)
async def test_a_method_of_more_than_64_bytes_is_not_implemented(lane: str, cut: int) -> None:
    async with proxy(lane, answering(OK)) as lb:
        assert (await lb.ask(get(b"/", method=b"M" * 64))).status == 200
        client, long = await lb.client(), get(b"/", method=b"M" * 65)
        await client.send(long[:cut])
        await client.send(long[cut:])
        assert (await client.answer()).status == 501
        assert len(lb.backends[0].peers) == 1


@lanes
@trio_test(timeout_s=8)
async def test_connect_is_not_supported_and_nothing_of_it_leaves(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        answer = await lb.ask(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
        assert answer.status == 501
        assert answer.get(b"proxy-status") == b"edge; error=http_request_error"
        assert not lb.backends[0].peers


@lanes
@pytest.mark.parametrize(
    ("asked", "status", "method", "target"),
    [
        (b"GET /bad HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400, b"GET", b"/bad"),
        (b"nonsense\r\n\r\n", 400, b"-", b"-"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, b"-", b"-"),
        (b"GET /long HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 20_000 + b"\r\n\r\n", 431, b"GET", b"/long"),
        (b"GET /slow HTTP/1.1\r\nHost:", 408, b"GET", b"/slow"),
    ],
)
@trio_test(timeout_s=8)
async def test_what_is_refused_is_in_the_access_log_too(
    lane: str, asked: bytes, status: int, method: bytes, target: bytes
) -> None:
    setup = Setup(timeouts=ListenerTimeouts(header_s=0.3))
    async with proxy(lane, answering(OK), setup=setup) as lb:
        client = await lb.client()
        await client.send(GET)
        await client.answer()
        await client.send(asked)
        answer = await client.answer()
        assert answer.status == status
        _, record = await lb.wait_records(2)
        assert (record.status, record.head.method, record.head.target) == (status, method, target)
        assert (record.response_bytes, record.backend) == (len(answer.body), None)
        assert record.reason is not None
        assert record.reason.encode() in answer.body


@lanes
@trio_test(timeout_s=8)
async def test_the_bytes_of_our_own_answers_count_and_say_why(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=Setup(pool="api")) as lb:
        answer = await lb.ask(GET)
        (record,) = await lb.wait_records(1)
        assert (record.status, record.response_bytes) == (404, len(answer.body))
        assert record.reason == "no route takes this request"
