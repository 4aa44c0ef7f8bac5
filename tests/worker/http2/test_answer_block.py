"""Answers of the express lane to streams say what those of the task lane say."""

import re
from collections import Counter as Counts
from typing import Any

import trio
from support.http2 import Answer2, connect2
from support.http_corpus import ACCEPTED_RESPONSES
from support.peer import Peer
from support.proxy import OK, proxy
from support.trio_test import trio_test

from lbproxy.link.grid import Counter

STREAM_LANES = ("h2", "h2task")
CHUNKS = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"
_number = re.compile(rb" /([0-9]+)")
_status = re.compile(rb"HTTP/1.. ([0-9]{3})")
_length = re.compile(rb"content-length:\s*([0-9]+)", re.IGNORECASE)


def whole(head: bytes, method: bytes) -> tuple[bytes, bool]:
    """With the body that the head tells of, and whether the connection's end ends it."""
    status = int(_status.match(head)[1])  # type: ignore[index]
    if status in (204, 304) or status < 200 or method == b"HEAD":
        return head + (OK if status < 200 and status != 101 else b""), False
    if b"hunked" in head:
        return head + CHUNKS, False
    if length := _length.search(head):
        return head + b"x" * int(length[1]), False
    return head + b"until the end", True


async def any_answer(peer: Peer) -> None:
    while True:
        asked = await peer.request()
        number = int(_number.search(asked.start)[1])  # type: ignore[index]
        data, closes = whole(ACCEPTED_RESPONSES[number], asked.start.partition(b" ")[0])
        await peer.send(data)
        if closes:
            return


def ask_all(client: Any) -> list[object]:
    """Each answer several times: read for the first time, remembered, and read by a template."""
    seen: list[object] = []
    for number in range(len(ACCEPTED_RESPONSES)):
        for method in ("GET", "GET", "GET", "HEAD", "POST"):
            stream = client.request(method, f"/{number}", end=method != "POST")
            if method == "POST":
                client.send(stream, b"body", end=True)
            answer: Answer2 = client.answer(stream)
            fields = [field for field in answer.fields if field[0] != "x-request-id"]
            body = re.sub(rb"(?<=request )[0-9a-f]{32}", b"", bytes(answer.body))
            seen.append((method, answer.status, fields, body, answer.trailers, answer.interim and True, answer.reset))
    return seen


@trio_test(timeout_s=30)
async def test_both_lanes_answer_count_and_log_alike() -> None:
    seen = []
    for lane in STREAM_LANES:
        async with proxy(lane, any_answer) as lb:
            client = connect2(lb.address.port)
            lb._clients.append(client)  # type: ignore[arg-type]
            answers = await trio.to_thread.run_sync(ask_all, client)
            records = await lb.wait_records(len(answers))
            told = [(one.head, one.status, one.request_bytes, one.response_bytes, one.error) for one in records]
            taken = lb.router.tally.take()
            counts: Counts[tuple[str, int, str]] = Counts()  # the lanes have series of their own
            for one in taken.exchanges:
                counts[one.method, one.status, "exchanges"] += sum(one.buckets)
                counts[one.method, one.status, "bytes"] += one.response_bytes
                counts[one.method, one.status, "received"] += one.request_bytes
            seen.append((answers, told, counts, sorted(map(str, taken.incidents)), lb.count(Counter.FAILED)))
            assert set(lb.lanes.handed_over) == ({"until_close", "interim", "stream"} if lane == "h2" else set())
    for one, other in zip(*seen, strict=True):
        assert one == other
