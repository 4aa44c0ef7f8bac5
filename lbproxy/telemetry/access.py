"""The access log: one line for each exchange, as nginx's combined format or as JSON.

Hot: a combined line from its record costs about 0.7 µs (test_access.py measures), and 0.4 µs from `note`, which needs
no record: the parts that the previous line had of the same head are used again. One `translate` tells whether a value
needs escaping (0.05 µs; a regular expression takes 0.5). Knows neither sockets nor exchanges.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from lbproxy.model import BackendId
from lbproxy.telemetry.sink import LOSS_EVERY_S, Sink
from lbproxy.wire.head import RequestHead
from lbproxy.wire.lines import spoiling

BATCH_LINES = 256
UNIX = b"unix:"  # a client without an address, as nginx writes it


class AccessRecord(NamedTuple):
    """The facts of one exchange. A tuple, because making one costs a third of making an object."""

    time: float  # when the request's head was complete: seconds of the epoch
    head: RequestHead
    status: int
    request_bytes: int  # of the bodies
    response_bytes: int
    duration_s: float
    served_by: BackendId | None  # None when no backend had part in it
    client: bytes
    request_id: bytes
    error: str | None = None  # RFC 9209 error type
    reason: str | None = None  # one sentence, as the client reads it

    @property
    def backend(self) -> str | None:
        """ "web.3" """
        return None if self.served_by is None else self.served_by.name


_OF_HEAD = frozenset((b"referer", b"user-agent"))
_NO_LINES: list[bytes] = []
_NO_FIELDS: dict[bytes, list[bytes]] = {}


def for_access(head: RequestHead) -> RequestHead:
    """The head with only the fields that a line needs: for a record that waits for its end, perhaps for hours."""
    fields = {name: values for name, values in head.fields.items() if name in _OF_HEAD}
    return replace(head, lines=_NO_LINES, fields=fields or _NO_FIELDS)


class AccessLog:
    """Collects lines; `flush` hands them to the sink in one piece. `format`: combined | json | event | off, where event
    is json among events: each line says `"event":"access"`.

    `on_loss` gets the number of lines that the sink lost, once lines flow again. `on_first` is called for the first
    line after a flush: the owner plans the next flush then.
    """

    def __init__(
        self,
        sink: Sink | None,
        format: str,
        on_loss: Callable[[int], None] = lambda lines: None,
        on_first: Callable[[], None] = lambda: None,
    ) -> None:
        self.is_on = format != "off" and sink is not None
        self.is_combined = self.is_on and format == "combined"  # then `note` may be used instead of `add`
        self._sink = sink
        self._on_loss = on_loss
        self._on_first = on_first
        self._told = 0
        self._told_at = float("-inf")
        self._lines: list[bytes] = []
        self._combined = combined_liner()
        self._make = combined_maker(self._combined) if format == "combined" else json_maker(event=format == "event")

    def note(self, at: float, client: bytes, head: RequestHead, target: bytes, *, status: int, size: int) -> None:
        """Add a combined line without a record: see `combined_liner`."""
        lines = self._lines
        if not lines:
            self._on_first()
        lines.append(self._combined(at, client, head, target, status=status, size=size))
        if len(lines) >= BATCH_LINES:
            self.flush()

    def add(self, record: AccessRecord) -> None:
        if self.is_on:
            lines = self._lines
            if not lines:
                self._on_first()
            lines.append(self._make(record))
            if len(lines) >= BATCH_LINES:
                self.flush()

    def flush(self) -> None:
        """Cheap when nothing was added."""
        lines = self._lines
        if lines and self._sink is not None:
            sink = self._sink
            sink.write(b"".join(lines))
            lines.clear()
            if sink.dropped != self._told and sink.backlog_bytes < 64 * 1024 and self._may_tell_loss():
                lost = sink.dropped - self._told
                self._told += lost
                self._on_loss(lost)

    def _may_tell_loss(self) -> bool:
        now = time.monotonic()
        if now < self._told_at + LOSS_EVERY_S:
            return False
        self._told_at = now
        return True

    def go_on_with(self, fd: int) -> None:
        """See Sink.go_on_with."""
        self.flush()
        assert self._sink is not None
        self._sink.go_on_with(fd)

    def close(self, timeout_s: float) -> None:
        self.flush()
        if self._sink is not None:
            self._sink.close(timeout_s)


# The characters that need no escape: visible ASCII and the space, without the quote and the backslash.
_PLAIN = frozenset(range(32, 127)) - frozenset(b'"\\')
_UNESCAPED = spoiling(_PLAIN)
_ESCAPED = {byte: b"\\x%02X" % byte for byte in range(256) if byte not in _PLAIN}


class CombinedLiner(Protocol):
    def __call__(
        self, at: float, client: bytes, head: RequestHead, target: bytes, *, status: int, size: int
    ) -> bytes: ...


def combined_liner() -> CombinedLiner:
    """The maker of client - - [time] "METHOD path HTTP/1.1" status bytes "referer" "agent".

    The target is an argument of its own: the head may be one of the same shape with another target.
    """
    second = -1
    stamp = before = middle = tail = b""
    known: RequestHead | None = None
    known_status = known_size = -1

    def make(at: float, client: bytes, head: RequestHead, target: bytes, *, status: int, size: int) -> bytes:
        nonlocal second, stamp, before, middle, tail, known, known_status, known_size
        if int(at) != second:
            second = int(at)
            stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second)).encode()
            known = None
        # Most lines differ from the previous one in the client and the target only.
        if head is not known or status != known_status or size != known_size:
            known, known_status, known_size = head, status, size
            fields = head.fields
            referer = b"".join(fields[b"referer"]) or b"-" if b"referer" in fields else b"-"
            agent = b"".join(fields[b"user-agent"]) or b"-" if b"user-agent" in fields else b"-"
            before = b' - - [%b] "%b ' % (stamp, plain(head.method))
            version = b"2.0" if head.is_http2 else b"1.%d" % head.minor
            tail = b' HTTP/%b" %d %d "%b" "%b"\n' % (version, status, size, plain(referer), plain(agent))
        return b"".join((client or UNIX, before, plain(target), tail))

    return make


def combined_maker(line: CombinedLiner | None = None) -> Callable[[AccessRecord], bytes]:
    line = line or combined_liner()

    def make(record: AccessRecord) -> bytes:
        at, head, status, _, size, _, _, client, _, _, _ = record
        return line(at, client, head, head.target, status=status, size=size)

    return make


def plain(value: bytes) -> bytes:
    """`value`, escaped where that is needed."""
    return value if value.translate(_UNESCAPED) == value else escaped(value)


def json_maker(*, event: bool = False) -> Callable[[AccessRecord], bytes]:
    """One object a line; `error` and `reason` only when there is one. `event`: it says that it is an access line."""
    opening = b'{"event":"access",' if event else b"{"
    second = -1
    stamp = b""

    def make(record: AccessRecord) -> bytes:
        nonlocal second, stamp
        at = record.time
        if int(at) != second:
            second = int(at)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        _, head, status, received, sent, duration_s, backend, client, request_id, error, reason = record
        client = client or UNIX
        method, host, path = head.method, head.host, head.target
        from_outside = method + host + path + client + request_id
        if from_outside.translate(_UNESCAPED) != from_outside:
            method, host, path, client, request_id = map(_json_escaped, (method, host, path, client, request_id))
        return (
            b'%b"time":"%b.%03dZ","method":"%b","host":"%b","path":"%b","status":%d,"request_bytes":%d,'
            b'"response_bytes":%d,"duration_s":%.6f,"backend":%b,"generation":%b,"client":"%b","request_id":"%b"%b}\n'
            % (
                *(opening, stamp, int(at * 1000) % 1000, method, host, path, status, received, sent, duration_s),
                b"null" if backend is None else b'"%b"' % backend.name.encode(),
                b"null" if backend is None else b"%d" % backend.generation,
                *(client, request_id, b"" if error is None else _why(error, reason)),
            )
        )

    return make


def _why(error: str, reason: str | None) -> bytes:
    told = b"" if reason is None else b',"reason":%b' % json.dumps(reason).encode()
    return b',"error":"%b"%b' % (error.encode(), told)


def escaped(value: bytes) -> bytes:
    r"""Escapes like nginx: quotes, backslashes and all but visible ASCII become \xHH."""
    return b"".join(_ESCAPED.get(byte) or bytes((byte,)) for byte in value)


def _json_escaped(value: bytes) -> bytes:
    return json.dumps(value.decode("utf-8", "backslashreplace"))[1:-1].encode()
