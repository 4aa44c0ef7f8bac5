"""The access log: one line for each exchange, as nginx's combined format or as JSON.

Hot: a combined line costs about 0.7 µs, the record it is made of included (test_access.py measures), because
it is one bytes interpolation and one `translate` that asks whether anything needs escaping (0.17 µs; a regular
expression takes 0.57). Knows neither sockets nor exchanges.
"""

import json
import time
from collections.abc import Callable
from typing import NamedTuple

from lbproxy.telemetry.sink import Sink

BATCH_LINES = 256


class AccessRecord(NamedTuple):
    """What an exchange was. A tuple, because making one costs a third of making an object."""

    time: float  # when the request's head was complete: seconds of the epoch
    method: bytes
    host: bytes
    path: bytes  # the target as received
    status: int
    request_bytes: int  # of the bodies
    response_bytes: int
    duration_s: float
    backend: str | None  # "web.3"; None when no backend had part in it
    generation: int | None
    client: bytes
    request_id: bytes
    error: str | None = None  # RFC 9209 error type
    referer: bytes = b""
    user_agent: bytes = b""
    minor: int = 1


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
_PLAIN = bytes(byte for byte in range(32, 127) if byte not in b'"\\')
_ESCAPED = {byte: b"\\x%02X" % byte for byte in range(256) if byte not in _PLAIN}


def combined_maker() -> Callable[[AccessRecord], bytes]:
    """client - - [time] "METHOD path HTTP/1.1" status bytes "referer" "agent"."""
    second = -1
    stamp = b""

    def make(record: AccessRecord) -> bytes:
        nonlocal second, stamp
        at, method, _, path, status, _, size, _, _, _, client, _, _, referer, agent, minor = record
        if int(at) != second:
            second = int(at)
            stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second)).encode()
        line = b'%b - - [%b] "%b %b HTTP/1.%d" %d %d "%b" "%b"\n' % (
            *(client, stamp, method, path, minor, status, size, referer or b"-", agent or b"-"),
        )
        # The six quotes and the line end are ours. Anything else that is not plain came from the client.
        if line.translate(None, _PLAIN) != b'""""""\n':
            method, path, referer, agent = map(escaped, (method, path, referer or b"-", agent or b"-"))
            return b'%b - - [%b] "%b %b HTTP/1.%d" %d %d "%b" "%b"\n' % (
                *(client, stamp, method, path, minor, status, size, referer, agent),
            )
        return line

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
        _, method, host, path, status, received, sent, duration_s, backend, generation, client, request_id, *_ = record
        from_outside = method + host + path + client + request_id
        if from_outside.translate(None, _PLAIN):
            method, host, path, client, request_id = map(_json_escaped, (method, host, path, client, request_id))
        return (
            b'{"time":"%b.%03dZ","method":"%b","host":"%b","path":"%b","status":%d,"request_bytes":%d,'
            b'"response_bytes":%d,"duration_s":%.6f,"backend":%b,"generation":%b,"client":"%b","request_id":"%b"%b}\n'
            % (
                *(stamp, int(at * 1000) % 1000, method, host, path, status, received, sent, duration_s),
                b"null" if backend is None else b'"%b"' % backend.encode(),
                b"null" if generation is None else b"%d" % generation,
                *(client, request_id, b"" if record.error is None else b',"error":"%b"' % record.error.encode()),
            )
        )

    return make


def escaped(value: bytes) -> bytes:
    r"""As nginx: quotes, backslashes and what is not visible ASCII become \xHH."""
    return b"".join(_ESCAPED.get(byte) or bytes((byte,)) for byte in value)


def _json_escaped(value: bytes) -> bytes:
    return json.dumps(value.decode("utf-8", "backslashreplace"))[1:-1].encode()
