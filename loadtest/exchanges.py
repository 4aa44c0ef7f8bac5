"""The HTTP exchanges of the storm: requests, and checks of their answers. Values only; classify.py plays them."""

import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from classify import Exchange

EVENTS, EVERY_S = (5, 100), 0.1
LONG_BLOCKS, LONG_PAUSE_S = 30, 0.1
LONG_S = LONG_BLOCKS * LONG_PAUSE_S


def get(target: str, right: Callable[[bytes], bool], *, lasts_s: float = 0.0) -> Exchange:
    return Exchange([f"GET {target} HTTP/1.1\r\nHost: storm\r\n\r\n".encode()], right, lasts_s)


def small() -> Exchange:
    return get("/", b"Hello world\n".__eq__)


def medium() -> Exchange:
    return get("/64k", lambda body: len(body) == 65536)


def chunked() -> Exchange:
    return get("/chunked?n=30&bytes=700", (b"c" * 21_000).__eq__)


def post() -> Exchange:
    body = random.randbytes(random.randrange(1, 50_000))
    head = b"POST /sum HTTP/1.1\r\nHost: storm\r\nContent-Length: %d\r\n\r\n" % len(body)
    return Exchange([head + body], _sum_of(body))


def chunked_upload() -> Exchange:
    parts = [random.randbytes(random.randrange(1, 9_000)) for _ in range(10)]
    pieces = [b"POST /sum HTTP/1.1\r\nHost: storm\r\nTransfer-Encoding: chunked\r\n\r\n"]
    pieces += [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
    return Exchange([*pieces, b"0\r\n\r\n"], _sum_of(b"".join(parts)), lasts_s=0.5, pause_s=0.05)


def _sum_of(body: bytes) -> Callable[[bytes], bool]:
    return (b"%d %08x\n" % (len(body), zlib.crc32(body))).__eq__


def slow() -> Exchange:
    seconds = random.choice((0.1, 0.3, 0.6, 1.2))
    return get(f"/slow?s={seconds}", b"slept\n".__eq__, lasts_s=seconds)


def sse(last: int = 0, until: int = 0) -> Exchange:
    """An event stream. A drain ends it after a whole event; then the client continues after the `last` event it has, as
    EventSource does. Every id comes once and in order."""
    until = until or random.randint(*EVENTS)

    def ids(body: bytes) -> list[int]:
        return [int(number) for number in re.findall(rb"id: (\d+)\ndata: .*\n\n", body)]

    def right(body: bytes) -> bool:
        return body.count(b"\n\n") == len(ids(body)) and ids(body) == [*range(last + 1, last + 1 + len(ids(body)))]

    def rest(body: bytes) -> Exchange | None:
        come = last + len(ids(body))
        return sse(come, until) if come < until else None

    head = f"GET /sse?n={until}&every={EVERY_S} HTTP/1.1\r\nHost: storm\r\nLast-Event-ID: {last}\r\n\r\n"
    return Exchange([head.encode()], right, lasts_s=until * EVERY_S, rest=rest)


def long_download() -> Exchange:
    """A download that lasts longer than the grace of a request, but always moves."""
    return get(f"/drip?n={LONG_BLOCKS}&every={LONG_PAUSE_S}", (b"d" * 1000 * LONG_BLOCKS).__eq__, lasts_s=LONG_S)


def long_upload() -> Exchange:
    body = random.randbytes(1000 * LONG_BLOCKS)
    parts = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    framing = b"Content-Length: %d" % len(body)
    if random.random() < 0.5:
        framing = b"Transfer-Encoding: chunked"
        parts = [*(b"%x\r\n%b\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]
    head = b"POST /sum HTTP/1.1\r\nHost: storm\r\n%b\r\n\r\n" % framing
    return Exchange([head, *parts], _sum_of(body), lasts_s=LONG_S, pause_s=LONG_PAUSE_S)


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    make: Callable[[], Exchange]
    fresh: bool = False  # a connection for each request
    rest_s: float = 0.02


KINDS = (
    Kind("keep-alive GET", small),
    Kind("fresh GET", small, fresh=True),
    Kind("64 KiB GET", medium),
    Kind("chunked GET", chunked, fresh=True),
    Kind("POST", post),
    Kind("fresh POST", post, fresh=True),
    Kind("chunked upload", chunked_upload),
    Kind("slow answer", slow),
    Kind("SSE", sse, fresh=True),
    Kind("long download", long_download),
    Kind("long upload", long_upload),
)
