"""The access log: one line for each exchange, as nginx's combined format or as JSON.

Hot: a combined line costs about 0.7 µs, the record it is made of included (test_access.py measures), because
it is one bytes interpolation and one `translate` that asks whether anything needs escaping (0.17 µs; a regular
expression takes 0.57). Knows neither sockets nor exchanges.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from lbproxy.model import BackendId
from lbproxy.telemetry.sink import Sink
from lbproxy.wire.head import RequestHead
from lbproxy.wire.lines import spoiling

BATCH_LINES = 256


class AccessRecord(NamedTuple):
    """What an exchange was. A tuple, because making one costs a third of making an object."""

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

    @property
    def backend(self) -> str | None:
        """ "web.3" """
        return None if self.served_by is None else self.served_by.name


_OF_HEAD = frozenset((b"referer", b"user-agent"))
_NO_LINES: list[bytes] = []
_NO_FIELDS: dict[bytes, list[bytes]] = {}


def for_access(head: RequestHead) -> RequestHead:
    """What a line says of a head, without the rest: for a record that has to wait for its end, for hours maybe."""
    fields = {name: values for name, values in head.fields.items() if name in _OF_HEAD}
    return replace(head, lines=_NO_LINES, fields=fields or _NO_FIELDS)


class AccessLog:
    """Collects lines; `flush` hands them to the sink in one piece. `format`: combined | json | off.

    `on_loss` is told how many lines the sink lost, once lines flow again. `on_first` is called for the first line
    behind a flush: then it is time to think of the next one.
    """

    def __init__(
        self,
        sink: Sink | None,
        format: str,
        on_loss: Callable[[int], None] = lambda lines: None,
        on_first: Callable[[], None] = lambda: None,
    ) -> None:
        self.is_on = format != "off" and sink is not None
        self._sink = sink
        self._on_loss = on_loss
        self._on_first = on_first
        self._told = 0
        self._lines: list[bytes] = []
        self._make = json_maker() if format == "json" else combined_maker()

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
            if sink.dropped != self._told and sink.backlog_bytes < 64 * 1024:
                lost = sink.dropped - self._told
                self._told += lost
                self._on_loss(lost)

    def reopen(self) -> None:
        """See Sink.reopen. Raises OSError."""
        self.flush()
        if self._sink is not None:
            self._sink.reopen()

    def close(self, timeout_s: float) -> None:
        self.flush()
        if self._sink is not None:
            self._sink.close(timeout_s)


# What may stand in a line as it is: visible ASCII and the space, without the quote and the backslash.
_PLAIN = frozenset(range(32, 127)) - frozenset(b'"\\')
_UNESCAPED = spoiling(_PLAIN)
_IN_LINE = spoiling(_PLAIN | frozenset(b'"'))
_ESCAPED = {byte: b"\\x%02X" % byte for byte in range(256) if byte not in _PLAIN}
_COMBINED = b'%b - - [%b] "%b %b HTTP/1.%d" %d %d "%b" "%b"'


def combined_maker() -> Callable[[AccessRecord], bytes]:
    """client - - [time] "METHOD path HTTP/1.1" status bytes "referer" "agent"."""
    second = -1
    stamp = b""

    def make(record: AccessRecord) -> bytes:
        nonlocal second, stamp
        at, head, status, _, size, _, _, client, _, _ = record
        if int(at) != second:
            second = int(at)
            stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second)).encode()
        method, path, fields, minor = head.method, head.target, head.fields, head.minor
        referer = b"".join(fields[b"referer"]) or b"-" if b"referer" in fields else b"-"
        agent = b"".join(fields[b"user-agent"]) or b"-" if b"user-agent" in fields else b"-"
        line = _COMBINED % (client, stamp, method, path, minor, status, size, referer, agent)
        # Six quotes are ours. Anything else that is not plain came from the client.
        if line.translate(_IN_LINE) != line or line.count(b'"') != 6:
            method, path, referer, agent = map(escaped, (method, path, referer, agent))
            line = _COMBINED % (client, stamp, method, path, minor, status, size, referer, agent)
        return line + b"\n"

    return make


def json_maker() -> Callable[[AccessRecord], bytes]:
    """One object a line; `error` only when there is one."""
    second = -1
    stamp = b""

    def make(record: AccessRecord) -> bytes:
        nonlocal second, stamp
        at = record.time
        if int(at) != second:
            second = int(at)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        _, head, status, received, sent, duration_s, backend, client, request_id, error = record
        method, host, path = head.method, head.host, head.target
        from_outside = method + host + path + client + request_id
        if from_outside.translate(_UNESCAPED) != from_outside:
            method, host, path, client, request_id = map(_json_escaped, (method, host, path, client, request_id))
        return (
            b'{"time":"%b.%03dZ","method":"%b","host":"%b","path":"%b","status":%d,"request_bytes":%d,'
            b'"response_bytes":%d,"duration_s":%.6f,"backend":%b,"generation":%b,"client":"%b","request_id":"%b"%b}\n'
            % (
                *(stamp, int(at * 1000) % 1000, method, host, path, status, received, sent, duration_s),
                b"null" if backend is None else b'"%b"' % backend.name.encode(),
                b"null" if backend is None else b"%d" % backend.generation,
                *(client, request_id, b"" if error is None else b',"error":"%b"' % error.encode()),
            )
        )

    return make


def escaped(value: bytes) -> bytes:
    r"""As nginx: quotes, backslashes and what is not visible ASCII become \xHH."""
    return b"".join(_ESCAPED.get(byte) or bytes((byte,)) for byte in value)


def _json_escaped(value: bytes) -> bytes:
    return json.dumps(value.decode("utf-8", "backslashreplace"))[1:-1].encode()
