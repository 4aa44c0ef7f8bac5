"""HTTP/2 frame by frame, for clients that break rules: the test sends any bytes, and reads what comes of it.

with raw_http2(lb.port) as client:
    client.send(headers(1, get("/")), rst_stream(1))
    assert client.verdict(1) == Verdict(reset=8)

Written apart from lbproxy's own frames, and without h2, which refuses to send what is wrong. Header blocks have
literals without Huffman code, so any bytes can be a name or a value.
"""

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import hpack

from support.http2 import tls_context

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
HAS_PRIORITY = 32
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, CALM = 1, 7, 8, 11
PATIENCE_S = 20.0

Field = tuple[bytes, bytes]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        at = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a stream ended: answered, reset, or with its connection (`goaway` None: closed without a word)."""

    status: int = 0
    reset: int | None = None
    goaway: int | None = None
    closed: bool = False
    body: bytes = b""
    fields: tuple[Field, ...] = ()
    trailers: tuple[Field, ...] = ()


# Frames


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((first | value,))
    out = [first | most]
    value -= most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def indexed_literal(name: bytes, value: bytes) -> bytes:
    """As literal, and kept in the dynamic table."""
    return b"\x40" + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields: Sequence[Field]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def get(path: bytes = b"/", *fields: Field, method: bytes = b"GET", authority: bytes = b"a.example") -> list[Field]:
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]
    return [*pseudo, *fields]


def post(path: bytes = b"/", *fields: Field) -> list[Field]:
    return get(path, *fields, method=b"POST")


def headers(stream: int, fields: Sequence[Field], *, end: bool = True) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields))


def data(stream: int, payload: bytes, *, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def rst_stream(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def settings(**values: int) -> bytes:
    names = ("header_table", "push", "streams", "window", "frame", "list", "", "connect")
    pairs = [struct.pack(">HI", names.index(name) + 1, value) for name, value in values.items()]
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))


def ping(payload: bytes = b"12345678") -> bytes:
    return frame(PING, 0, 0, payload)


def priority(stream: int, parent: int = 0, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream, struct.pack(">IB", parent, weight))


class RawHttp2:
    """One connection. The preface and SETTINGS are sent at once, and SETTINGS of the other side acknowledged."""

    def __init__(self, sock: socket.socket, hello: bytes) -> None:
        sock.settimeout(PATIENCE_S)
        self.sock = sock
        self.frames: list[Frame] = []  # everything received
        self.verdicts: dict[int, Verdict] = {}
        self.goaway: int | None = None
        self.ended = False
        self.refused_bytes = False  # the other side takes no more
        self._rest = b""
        self._decoder = hpack.Decoder()
        self._heads: dict[int, list[tuple[Field, ...]]] = {}
        self._bodies: dict[int, bytearray] = {}
        self.send(hello)

    def send(self, *pieces: bytes) -> bool:
        """False: the other side has closed. What it has answered before that can still be read."""
        try:
            self.sock.sendall(b"".join(pieces))
        except (ConnectionError, ssl.SSLError):
            self.refused_bytes = True
        return not self.refused_bytes

    def step(self) -> bool:
        """Read once. False at the end."""
        if self.ended:
            return False
        try:
            received = self.sock.recv(1 << 18)
        except (ConnectionError, ssl.SSLError):
            received = b""
        if not received:
            self.ended = True
            return False
        self._rest += received
        at = 0
        while len(self._rest) - at >= 9:
            end = at + 9 + int.from_bytes(self._rest[at : at + 3], "big")
            if end > len(self._rest):
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._rest, at + 3)
            self._take(Frame(kind, flags, stream, self._rest[at + 9 : end]))
            at = end
        self._rest = self._rest[at:]
        return True

    def _take(self, one: Frame) -> None:
        self.frames.append(one)
        if one.kind == SETTINGS and not one.flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        elif one.kind == GOAWAY:
            self.goaway = one.code
        elif one.kind == HEADERS:
            assert one.flags & END_HEADERS, "an answer with CONTINUATION: this client does not read it"
            decoded = tuple((bytes(name), bytes(value)) for name, value in self._decoder.decode(one.payload, raw=True))
            self._heads.setdefault(one.stream, []).append(decoded)
        elif one.kind == DATA:
            self._bodies.setdefault(one.stream, bytearray()).extend(one.payload)
        if one.stream and one.kind in (HEADERS, DATA) and one.flags & END_STREAM:
            self._judge(one.stream)
        elif one.kind == RST_STREAM:
            self._judge(one.stream, reset=one.code)

    def _judge(self, stream: int, reset: int | None = None) -> None:
        if stream in self.verdicts and reset is not None:
            return  # an answer, and the rest of the request is not wanted
        heads = [head for head in self._heads.get(stream, []) if head[0][1][:1] != b"1"]
        status = int(heads[0][0][1]) if heads else 0
        body = bytes(self._bodies.get(stream, b""))
        self.verdicts[stream] = Verdict(
            *(status, reset, None, False, body), heads[0][1:] if heads else (), heads[1] if len(heads) > 1 else ()
        )

    def verdict(self, stream: int, timeout_s: float = PATIENCE_S) -> Verdict:
        """Wait until the stream is over, or the connection."""
        self.sock.settimeout(timeout_s)
        while stream not in self.verdicts and self.step():
            pass
        return self.verdicts.get(stream) or Verdict(goaway=self.goaway, closed=True)

    def wait_ping(self, payload: bytes = b"roundtrp") -> bool:
        """A round trip: all that was sent before has been read. False: the connection has ended."""
        self.send(ping(payload))
        while not any(one.kind == PING and one.payload == payload for one in self.frames):
            if not self.step():
                return False
        return True

    def wait_end(self, timeout_s: float = PATIENCE_S) -> int | None:
        """Read to the end of the connection. Returns the code of its GOAWAY."""
        self.sock.settimeout(timeout_s)
        while self.step():
            pass
        return self.goaway

    def close(self) -> None:
        self.sock.close()


HELLO = PREFACE + settings()


def connect_raw(port: int, *, tls: bool = False, hello: bytes = HELLO, receive_bytes: int = 0) -> RawHttp2:
    """`hello`: sent first. `receive_bytes`: the receive buffer of the kernel; 0: the default."""
    sock = socket.socket()
    try:
        sock.settimeout(PATIENCE_S)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            sock = tls_context().wrap_socket(sock, server_hostname="a.example")
        return RawHttp2(sock, hello)
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def raw_http2(port: int, *, tls: bool = False, hello: bytes = HELLO, receive_bytes: int = 0) -> Iterator[RawHttp2]:
    """connect_raw, and closed behind the block."""
    with contextlib.closing(connect_raw(port, tls=tls, hello=hello, receive_bytes=receive_bytes)) as client:
        yield client
