"""What a proxy must know of gRPC over HTTP/2: which request is a call, its deadline, and the fields that end it.

Knows field lines and the five bytes in front of a message. Knows no protobuf, no stream and no connection.
"""

import re
from typing import Final

from lbproxy.wire.head import RequestHead

MESSAGE_HEAD_BYTES: Final = 5
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_timeout = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
# "application/grpc", and with "+proto" or parameters behind it, but not "application/grpc-web".
_is_call_line = re.compile(rb"content-type:[ \t]*application/grpc(?:[+;, \t].*)?", re.IGNORECASE | re.DOTALL).fullmatch


def is_grpc(head: RequestHead) -> bool:
    """Whether the request is a gRPC call. Only a client that speaks HTTP/2 can make one."""
    if head.method != b"POST":
        return False
    return any(_is_call_line(line) for line in head.lines if line[:7] in (b"content", b"Content"))


def is_grpc_spelt(raw: bytes | bytearray) -> bool:
    """The same of a head that was refused: its bytes as HTTP/1, as far as they came."""
    return raw.startswith(b"POST ") and any(_is_call_line(line) for line in bytes(raw).split(b"\r\n"))


def call_timeout_s(head: RequestHead) -> float | None:
    """The deadline of a call, from now; None: it has none, or one that is malformed."""
    for line in head.lines:
        if line[:13].lower() == b"grpc-timeout:":
            match = _timeout(line[13:].strip(b" \t"))
            return int(match[1]) * _SECONDS[match[2]] if match is not None else None
    return None


def status_lines(code: int, message: str, *, pushback_ms: int | None = None) -> list[bytes]:
    """The trailers that end a call. `pushback_ms`: a client with a retry policy comes back after this time."""
    lines = [b"grpc-status: %d" % code, b"grpc-message: " + percent_encoded(message)]
    if pushback_ms is not None:
        lines.append(b"grpc-retry-pushback-ms: %d" % pushback_ms)
    return lines


def percent_encoded(message: str) -> bytes:
    """The message as grpc-message wants it: all but visible ASCII, the blank, and the percent sign itself."""
    return b"".join(
        b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in message.encode("utf-8", "replace")
    )


def message(payload: bytes) -> bytes:
    """An uncompressed message in its frame."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def first_message(body: bytes) -> bytes | None:
    """The payload of the first message in the body; None: it is not complete, or it is compressed."""
    size = int.from_bytes(body[1:MESSAGE_HEAD_BYTES], "big")
    if len(body) < MESSAGE_HEAD_BYTES + size or body[0]:
        return None
    return body[MESSAGE_HEAD_BYTES : MESSAGE_HEAD_BYTES + size]


class MessageTracker:
    """Follow the messages of one direction of a call as they pass, and know where they end."""

    __slots__ = ("_head", "_left", "complete")

    def __init__(self) -> None:
        self.complete = 0  # messages
        self._head = b""  # the beginning of a message's head, as far as it has come
        self._left = 0  # bytes missing of the message at hand

    @property
    def at_boundary(self) -> bool:
        return not self._left and not self._head

    def feed(self, data: bytes) -> None:
        """All of `data` passes."""
        self._walk(data)

    def last_boundary(self, data: bytes) -> int:
        """The offset in `data`, which is not fed by this, behind the last whole message; -1: there is none.

        0: it stands at a boundary already, and no message ends within `data`.
        """
        ahead = MessageTracker()
        ahead._head, ahead._left = self._head, self._left
        return ahead._walk(data)

    def _walk(self, data: bytes) -> int:
        kept, left = len(self._head), self._left
        if kept:
            data = self._head + data
        size, at, complete = len(data), left, self.complete
        if left > size:
            self._left = left - size
            return -1
        last = -1 if kept else at
        if left:
            complete += 1
        while size - at >= MESSAGE_HEAD_BYTES:
            end = at + MESSAGE_HEAD_BYTES + int.from_bytes(data[at + 1 : at + MESSAGE_HEAD_BYTES], "big")
            if end > size:
                self._head, self._left, self.complete = b"", end - size, complete
                return last - kept if last >= 0 else -1
            at = last = end
            complete += 1
        self._head, self._left, self.complete = data[at:], 0, complete
        return last - kept if last >= 0 else -1
