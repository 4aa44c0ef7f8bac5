"""Conversations of HTTP/2 drawn from a seed: frames of one peer, most of them as they may be, some bent.

A step is a frame (bytes), or the number of a stream that the other side answers. Plain draws, no Hypothesis: twenty
thousand of them must be quick.
"""

import random
from typing import TypeAlias

import hpack

from lbproxy.wire.http2 import frames
from lbproxy.wire.http2.frames import frame

Field: TypeAlias = tuple[bytes, bytes]
Step: TypeAlias = bytes | int

M, S, A, P = (b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/x")
MORE: list[Field] = [
    (b"accept", b"*/*"),
    (b"cookie", b"a=b"),
    (b"cookie", b"c=d"),
    (b"x-empty", b""),
    (b"te", b"trailers"),
    (b"host", b"a.example"),
    (b"content-length", b"5"),
    (b"x-long", b"v" * 200),
    (b"user-agent", b"\xc3\xa4"),
]
ODD: list[Field] = [
    (b"X-Upper", b"a"),
    (b"connection", b"close"),
    (b"transfer-encoding", b"chunked"),
    (b"te", b"gzip"),
    (b":path", b"/y"),
    (b":unknown", b"a"),
    (b":status", b"200"),
    (b"host", b"b.example"),
    (b"content-length", b"x"),
    (b"content-length", b"5, 5"),
    (b"a b", b"c"),
    (b"a", b" c"),
    (b"a", b"c\r\nd: e"),
    (b"", b"a"),
]
STATUSES = [b"200", b"200", b"404", b"204", b"103", b"100", b"101", b"20"]
CODES = [0, 1, 7, 8, 11, 99]


class Peer:
    """Draws the frames of one side."""

    def __init__(self, seed: int, *, server: bool) -> None:
        """`server`: the peer answers streams 1, 3 and 5, which were opened before."""
        self.draw = random.Random(seed)
        self._server = server
        self._encoder = hpack.Encoder()
        self._next_id = 7 if server else 1
        self._ids = [1, 3, 5] if server else []

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        for _ in range(self.draw.randint(1, 7)):
            made = self._step()
            steps += made if isinstance(made, list) else [made]
        if self.draw.random() < 0.3:
            self._bend(steps)
        return steps

    def _step(self) -> list[Step] | Step:
        draw = self.draw.random()
        if draw < 0.34 or not self._ids:
            return list(self._head())
        if draw < 0.60:
            return self._data()
        if draw < 0.67:
            return list(self._block(self._id(), self._trailers(), end=self.draw.random() < 0.9))
        if draw < 0.75 and not self._server:
            return self._id()
        return self._control()

    def _id(self) -> int:
        if self.draw.random() < 0.05:
            return self.draw.randrange(0, 12)
        return self.draw.choice(self._ids[-3:])

    def _head(self) -> list[bytes]:
        if self._server:
            return self._block(self._id(), self._answer(), end=self.draw.random() < 0.3)
        if self.draw.random() < 0.04:
            self._next_id += 2
        stream_id = self._next_id if self.draw.random() < 0.96 else self.draw.randrange(0, 12)
        self._next_id = max(self._next_id, stream_id + 2)
        self._ids.append(stream_id)
        return self._block(stream_id, self._request(), end=self.draw.random() < 0.4)

    def _request(self) -> list[Field]:
        fields = [M, S, A, P] if self.draw.random() < 0.9 else self.draw.sample([M, S, A, P], self.draw.randint(2, 4))
        return self._spoilt(fields + self.draw.sample(MORE, self.draw.choice([0, 0, 1, 1, 2, 4])))

    def _answer(self) -> list[Field]:
        status = (b":status", self.draw.choice(STATUSES))
        return self._spoilt([status, *self.draw.sample(MORE, self.draw.choice([0, 1, 1, 2]))])

    def _trailers(self) -> list[Field]:
        return self._spoilt([(b"x-sum", b"7"), *self.draw.sample(MORE[:4], self.draw.randint(0, 1))])

    def _spoilt(self, fields: list[Field]) -> list[Field]:
        if self.draw.random() < 0.06:
            fields.insert(self.draw.randint(0, len(fields)), self.draw.choice(ODD))
        return fields

    def _block(self, stream_id: int, fields: list[Field], *, end: bool) -> list[bytes]:
        if self.draw.random() < 0.05:
            self._encoder.header_table_size = self.draw.choice([0, 100, 4096])
        block = self._encoder.encode(fields, huffman=self.draw.random() < 0.7)
        flags, payload = frames.END_STREAM if end else 0, block
        parts = [block]
        if self.draw.random() < 0.15:
            cut = self.draw.randint(0, len(block))
            parts = [block[:cut], block[cut:]]
        payload = parts[0]
        if self.draw.random() < 0.1:
            payload = self.draw.choice([0, 3, stream_id]).to_bytes(4, "big") + b"\x10" + payload
            flags |= frames.HAS_PRIORITY
        if self.draw.random() < 0.1:
            flags, payload = self._padded(flags, payload)
        if len(parts) == 1:
            return [frame(frames.HEADERS, flags | frames.END_HEADERS, stream_id, payload)]
        last = frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, parts[1])
        return [frame(frames.HEADERS, flags, stream_id, payload), last]

    def _padded(self, flags: int, payload: bytes) -> tuple[int, bytes]:
        padding = self.draw.choice([0, 1, 20])
        return flags | frames.PADDED, bytes((padding,)) + payload + bytes(padding)

    def _data(self) -> bytes:
        payload = b"d" * self.draw.choice([0, 5, 5, 5, 100, 16384 if self.draw.random() < 0.2 else 2])
        flags = frames.END_STREAM if self.draw.random() < 0.5 else 0
        if len(payload) < 1000 and self.draw.random() < 0.1:
            flags, payload = self._padded(flags, payload)
        return frame(frames.DATA, flags, self._id(), payload)

    def _control(self) -> bytes:
        draw, stream_id = self.draw, self._id()
        setting = draw.choice(
            [(1, 0), (1, 100), (2, 0), (3, 1), (4, 0), (4, 70000), (4, 2**31), (5, 9), (6, 1), (77, 7)]
        )
        return draw.choice(
            [
                frames.window_update(draw.choice([0, stream_id]), draw.choice([1, 1000, 1000, 2**30])),
                frames.window_update(stream_id, 1000),
                frames.rst_stream(stream_id, draw.choice(CODES)),
                frames.rst_stream(stream_id, 8),
                frames.settings([setting]),
                frames.settings([(4, draw.choice([0, 10, 65535, 70000]))]),
                frames.SETTINGS_ACK,
                frames.ping(b"12345678", ack=draw.random() < 0.5),
                frame(frames.PRIORITY, 0, stream_id, draw.choice([0, 3, 0, 5]).to_bytes(4, "big") + b"\x10"),
                frames.goaway(draw.choice([0, 1, 3, 2**31 - 1]), draw.choice(CODES), b"why"),
                frame(draw.choice([16, 99]), draw.randrange(256), stream_id, b"what"),
            ]
        )

    def _bend(self, steps: list[Step]) -> None:
        number = self.draw.randrange(len(steps))
        step = steps[number]
        if isinstance(step, int):
            return
        how, raw = self.draw.randrange(6), bytearray(step)
        if how == 0:
            raw[3] = self.draw.choice([*range(10), 99])
        elif how == 1:
            raw[4] ^= 1 << self.draw.choice([0, 2, 3, 5])
        elif how == 2:
            raw[8] = self.draw.randrange(12)
        elif how == 3 and len(raw) > 9:
            raw[self.draw.randrange(9, len(raw))] = self.draw.randrange(256)
        elif how == 4:
            payload = raw[9 : self.draw.randint(9, len(raw))]
            raw = bytearray(len(payload).to_bytes(3, "big") + raw[3:9] + payload)
        elif self.draw.random() < 0.5:
            del steps[number]
            return
        else:
            steps.insert(number, step)
        steps[number] = bytes(raw)
