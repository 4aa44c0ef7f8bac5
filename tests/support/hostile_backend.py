"""A backend over h2c that does what no backend should, by the path of the request; `/good` is answered properly.

SCRIPTS has what is sent for each path, and what a client may see of it: a status, or `CUT` for an answer that must not
look complete.
"""

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import hpack

from support.raw_http2 import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PUSH_PROMISE,
    REFUSED_STREAM,
    SETTINGS,
    Field,
    block,
    data,
    frame,
    literal,
    ping,
    rst_stream,
    settings,
    window_update,
)
from support.threaded_backend import ThreadedBackend

CUT = -1
GOOD = 200
Script = Callable[[int], bytes]


def head(stream: int, *fields: Field, status: bytes = b"200", end: bool = False) -> bytes:
    flags = END_HEADERS | (END_STREAM if end else 0)
    return frame(HEADERS, flags, stream, block([(b":status", status), *fields]))


def fields_of(stream: int, *fields: Field, end: bool = True) -> bytes:
    """A head with these fields alone."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields))


def goaway(last: int, code: int = 0) -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code))


def good(stream: int) -> bytes:
    return head(stream, (b"content-length", b"4")) + data(stream, b"good", end=True)


def _value(value: bytes) -> Script:
    return lambda stream: head(stream, (b"x", value), end=True)


def _name(name: bytes) -> Script:
    return lambda stream: head(stream, (name, b"y"), end=True)


def _status(status: bytes) -> Script:
    return lambda stream: head(stream, status=status, end=True)


def _endless_block(stream: int) -> bytes:
    piece = frame(CONTINUATION, 0, stream, literal(b"x", b"y" * 8000))
    return frame(HEADERS, 0, stream, block([(b":status", b"200")])) + piece * 100


def _trailers(*fields: Field, end: bool = True) -> Script:
    return lambda stream: head(stream) + data(stream, b"part") + fields_of(stream, *fields, end=end)


LINE = b"y\r\ninjected: yes"

SCRIPTS: dict[str, tuple[Script, int]] = {
    "/good": (good, GOOD),
    "/many-1xx": (lambda stream: head(stream, status=b"103") * 1000 + good(stream), 502),
    "/1xx-that-ends": (lambda stream: head(stream, status=b"103", end=True), 502),
    "/no-status": (lambda stream: fields_of(stream, (b"x", b"y")), 502),
    "/two-statuses": (lambda stream: fields_of(stream, (b":status", b"200"), (b":status", b"500")), 502),
    "/late-status": (lambda stream: fields_of(stream, (b"x", b"y"), (b":status", b"200")), 502),
    "/request-field": (lambda stream: fields_of(stream, (b":status", b"200"), (b":path", b"/")), 502),
    "/empty-block": (lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream), 502),
    **{f"/status-{n}": (_status(s), 502) for n, s in enumerate((b"101", b"2000", b"20", b"abc", b"", b"099", LINE))},
    **{
        f"/value-{n}": (_value(v), 502) for n, v in enumerate((LINE, b"a\nb", b"a\rb", b"a\0b", b"\x01", b" x", b"x\t"))
    },
    **{f"/name-{n}": (_name(v), 502) for n, v in enumerate((b"Upper", b"a b", b"a\r\nb", b"", b"a:b", b"\0"))},
    **{
        f"/field-{n}": (_name(v), 502)
        for n, v in enumerate((b"connection", b"transfer-encoding", b"keep-alive", b"upgrade", b"proxy-connection"))
    },
    "/two-lengths": (lambda stream: head(stream, *[(b"content-length", n) for n in (b"4", b"5")], end=True), 502),
    "/bad-length": (lambda stream: head(stream, (b"content-length", b"+4"), end=True), 502),
    "/large-head": (lambda stream: head(stream, *[(b"x-%d" % n, b"y" * 200) for n in range(70)], end=True), GOOD),
    "/giant-head": (_endless_block, 502),
    "/data-first": (lambda stream: data(stream, b"early") + good(stream), 502),
    "/push": (lambda stream: frame(PUSH_PROMISE, END_HEADERS, stream, b"\0\0\0\2" + block([])) + good(stream), 502),
    "/garbage": (lambda stream: b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 502),
    "/close": (lambda stream: b"", 502),
    "/cancel": (lambda stream: rst_stream(stream), 502),
    "/refused-for-ever": (lambda stream: rst_stream(stream, REFUSED_STREAM), 502),
    "/goaway-for-ever": (lambda stream: goaway(0), 502),
    "/goaway-error": (lambda stream: goaway(stream, 2) + rst_stream(stream, 2), 502),
    "/goaway-then-answer": (lambda stream: goaway(stream) + good(stream), GOOD),
    "/half-a-frame": (lambda stream: head(stream)[:-3], 504),
    "/silence": (lambda stream: ping(), 504),
    "/window-of-0": (lambda stream: window_update(stream, 0) + good(stream), 502),
    "/window-overflow": (lambda stream: window_update(0, 2**31 - 1) * 2 + good(stream), 502),
    "/stream-window-overflow": (lambda stream: window_update(stream, 2**31 - 1) + good(stream), 502),
    "/bad-settings": (lambda stream: settings(frame=1) + good(stream), 502),
    "/ping-flood": (lambda stream: ping() * 100_000 + good(stream), 502),
    "/settings-flood": (lambda stream: settings() * 10_000 + good(stream), 502),
    "/stream-0": (lambda stream: frame(HEADERS, END_HEADERS, 0, block([(b":status", b"200")])), 502),
    "/other-stream": (lambda stream: good(stream + 1000), 502),
    "/even-stream": (lambda stream: good(2), 502),
    "/giant-frame": (lambda stream: head(stream) + data(stream, bytes(20_000), end=True), CUT),
    "/reset-in-body": (lambda stream: head(stream) + data(stream, b"part") + rst_stream(stream), CUT),
    "/close-in-body": (lambda stream: head(stream) + data(stream, b"part"), CUT),
    "/more-than-said": (lambda stream: head(stream, (b"content-length", b"2")) + data(stream, b"more", end=True), CUT),
    "/less-than-said": (lambda stream: head(stream, (b"content-length", b"9")) + data(stream, b"less", end=True), CUT),
    "/no-body-though-said": (lambda stream: head(stream, (b"content-length", b"9"), end=True), CUT),
    "/no-window": (lambda stream: head(stream) + data(stream, bytes(16_000)) * 1000, CUT),
    "/trailers-line": (_trailers((b"x", LINE)), CUT),
    "/trailers-status": (_trailers((b":status", b"200")), CUT),
    "/trailers-upper": (_trailers((b"X", b"y")), CUT),
    "/trailers-coding": (_trailers((b"transfer-encoding", b"chunked")), CUT),
    "/trailers-no-end": (_trailers((b"x", b"y"), end=False), CUT),
    "/trailers-route": (_trailers((b"content-length", b"9"), (b"host", b"evil"), (b"x", b"y")), GOOD),
    "/second-head": (lambda stream: head(stream) + head(stream, status=b"500", end=True), CUT),
    "/204-with-data": (lambda stream: head(stream, status=b"204") + data(stream, b"evil", end=True), 502),
}
CLOSES = {"/garbage", "/close", "/close-in-body"}


class HostileBackend(ThreadedBackend):
    def __init__(self) -> None:
        self.requests: list[str] = []
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as reader:
            if reader.read(len(PREFACE)) != PREFACE:
                return
            sock.sendall(settings())
            decoder = hpack.Decoder()
            while start := reader.read(9):
                kind, flags, stream = struct.unpack(">BBI", start[3:])
                payload = reader.read(int.from_bytes(start[:3], "big"))
                if kind == SETTINGS and not flags & 1:
                    sock.sendall(frame(SETTINGS, 1, 0))
                elif kind == PING and not flags & 1:
                    sock.sendall(frame(PING, 1, 0, payload))
                elif kind == HEADERS:
                    path = dict(decoder.decode(payload))[":path"]
                    self.requests.append(path)
                    sock.sendall(SCRIPTS[path][0](stream))
                    if path in CLOSES:
                        return


@contextlib.contextmanager
def hostile_backend() -> Iterator[HostileBackend]:
    with contextlib.closing(HostileBackend()) as backend:
        yield backend
