"""Strict HTTP/1 heads: bytes in, facts out. What two parsers could read differently is refused (/shared HTTP.md).

Knows one head at a time, as bytes. Knows no connection, no body, no clock, and not h11, whose second opinion
http1.py asks for. A RequestHead or ResponseHead is never changed once it is made: whoever sees the same bytes again may
use the same value again.

This is a hot path: one split, one dictionary look-up per line that was seen before (lines.py), one look at the few
lines that mean something. Only lines not seen before meet a regular expression.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lbproxy.wire.lines import (
    HOP_BY_HOP,
    IMPOSSIBLE,
    OURS,
    Entry,
    Kind,
    Lines,
    Refused,
    bad_request,
    bad_response,
    is_token,
    members,
)
from lbproxy.wire.startline import NOT_IN_START_LINE, read_request_line, read_status_line
from lbproxy.wire.upgrades import is_protocol, offered, passed, spelt

__all__ = [
    "Lines",
    "Refused",
    "RequestHead",
    "ResponseHead",
    "field_values",
    "head_end",
    "head_of_refused",
    "passed_upgrades",
    "read_request",
    "read_response",
    "response_head_end",
]

RESPONSE_HEAD_BYTES = 64 * 1024
RESPONSE_FIELDS = 256
MOST_LOGGED_BYTES = 8192  # of a request line that is refused

# As plain ints: Kind.HOST in the loops below would cost an attribute look-up per line.
UNKNOWN: Entry = (-1, b"", b"", b"")
_RESPELT = Kind.RESPELT.value
_NOTED = Kind.NOTED.value
_ASIDE = Kind.ASIDE.value
_HOST = Kind.HOST.value
_LENGTH = Kind.LENGTH.value
_KEEP_ALIVE = Kind.KEEP_ALIVE.value
_EVENT_STREAM = Kind.EVENT_STREAM.value
_ENCODED = Kind.ENCODED.value


@dataclass(slots=True)
class RequestHead:
    method: bytes
    target: bytes  # as it is forwarded: origin-form or "*"
    host: bytes  # as received, from the target if that was absolute; b"" for 1.0 without Host
    minor: int  # 0 or 1
    keep_alive: bool
    length: int | None
    chunked: bool
    lines: list[bytes]  # end-to-end field lines "Name: value", without what headers.py makes itself
    fields: dict[bytes, list[bytes]]  # lower-case name -> values, of what lbproxy itself reads
    expects_continue: bool = False
    upgrades: tuple[bytes, ...] = ()  # what it asks to switch to, as spelt; which of them may pass is the pool's to say
    wants_trailers: bool = False
    is_http2: bool = False  # it came on a stream; all the rest is spelt as of HTTP/1.1


@dataclass(slots=True)
class ResponseHead:
    status: int
    reason: bytes
    minor: int
    keep_alive: bool  # as far as the head says: a body that ends with the connection is body.py's to know
    length: int | None
    chunked: bool
    lines: list[bytes]
    fields: dict[bytes, list[bytes]]
    upgrade: bytes = b""  # of a 101: the one protocol that it switches to, as spelt
    event_stream: bool = False


def head_end(buffer: bytes | bytearray, start: int, limit: int) -> int:
    """The offset just behind a request head, or -1 while it is incomplete. `start`: the length last looked at.

    Raises Refused as soon as the bytes cannot become a strict head, or one within `limit` bytes. Of a complete head
    only its length is checked: read_request does the rest.
    """
    end = buffer.find(b"\r\n\r\n", start - 3 if start > 3 else 0)
    if end > 0:
        if end + 4 > limit:
            raise bad_request(f"the head is over {limit} bytes", 431)
        return end + 4
    if end == 0:
        raise bad_request("more than one empty line before a request")
    _refuse_hopeless_request(buffer, start)
    if len(buffer) >= limit:
        raise bad_request(f"the head is over {limit} bytes", 431)
    return -1


def _refuse_hopeless_request(buffer: bytes | bytearray, start: int) -> None:
    if IMPOSSIBLE(buffer, start - 1 if start else 0):
        raise bad_request("a control byte, or a line that ends in a bare CR or LF")
    begin = 2 if buffer.startswith(b"\r\n") else 0
    first = bytes(buffer[begin : begin + 1])
    if first and first != b"\r" and not is_token(first):
        raise bad_request("this is not an HTTP/1 request")
    end = buffer.find(b"\r\n", begin)
    if end < 0:
        if NOT_IN_START_LINE(buffer, start):
            raise bad_request("a byte in the request line that cannot be there")
    elif end + 2 > start:
        read_request_line(bytes(buffer[begin:end]))


def response_head_end(buffer: bytes | bytearray, start: int, limit: int = RESPONSE_HEAD_BYTES) -> int:
    """The offset just behind a response head, or -1 while it is incomplete. Raises Refused (502)."""
    end = buffer.find(b"\r\n\r\n", start - 3 if start > 3 else 0)
    if end >= 0:
        if end + 4 > limit:
            raise bad_response(f"the head is over {limit} bytes", "http_response_header_section_size")
        return end + 4
    if not b"HTTP/1.".startswith(bytes(buffer[:7])):
        raise bad_response("this is not an HTTP/1 response")
    if IMPOSSIBLE(buffer, start - 1 if start else 0):
        raise bad_response("a control byte, or a line that ends in a bare CR or LF")
    if len(buffer) >= limit:
        raise bad_response(f"the head is over {limit} bytes", "http_response_header_section_size")
    return -1


def read_request(raw: bytes, lines: Lines, max_fields: int) -> RequestHead:
    """Read the head `raw`, up to and with the empty line. Raises Refused (400, 417, 431, 501, 505)."""
    parts = raw.split(b"\r\n")
    if not parts[0]:
        del parts[0]  # one empty line before a request is tolerated (RFC 9112, 2.2)
    if len(parts) < 3 or parts.pop() or parts.pop():
        raise bad_request("the head does not end in an empty line")
    if len(parts) > max_fields + 1:
        raise bad_request(f"more than {max_fields} field lines", 431)
    first = parts.pop(0)
    method, target, authority, minor = lines.starts.get(first) or lines.keep_start(first, read_request_line(first))

    known = lines.requests.get
    passed: list[bytes] = []
    fields: dict[bytes, list[bytes]] = {}
    rare: list[Entry] = []
    host: bytes | None = None
    length: bytes | None = None
    keep_alive = minor == 1
    for line in parts:
        entry = known(line, UNKNOWN)
        if entry is UNKNOWN:
            entry = lines.learn_request(line)
        if entry is None:
            passed.append(line)
            continue
        kind, name, value, spelt = entry
        if kind == _NOTED:
            passed.append(spelt)
            fields[name] = [*fields[name], value] if name in fields else [value]
        elif kind == _ASIDE:
            fields[name] = [*fields[name], value] if name in fields else [value]
        elif kind == _HOST:
            if host is not None:
                raise bad_request("two Host lines")
            host = value
        elif kind == _KEEP_ALIVE:
            keep_alive = True
        elif kind == _LENGTH:
            if length is not None and length != value:
                raise bad_request("two Content-Length lines that differ")
            length = value
        elif kind == _RESPELT:
            passed.append(spelt)
        elif kind:
            rare.append(entry)
    if host is None:
        if minor:
            raise bad_request("no Host")
        host = b""
    if authority is not None:
        host = authority
    head = RequestHead(
        method, target, host, minor, keep_alive, None if length is None else int(length), False, passed, fields
    )
    if rare:
        _settle_request(head, rare)
    return head


def _settle_request(head: RequestHead, rare: list[Entry]) -> None:
    """The lines that change what a request is: Connection, Transfer-Encoding, Expect, Upgrade, TE."""
    options = _options(rare)
    head.chunked = _chunked(rare, head.length, head.minor, bad_request)
    upgrades: list[bytes] = []
    for kind, _, value, _ in rare:
        if kind == Kind.EXPECT:
            if value.lower() != b"100-continue":
                raise bad_request("an expectation that is not 100-continue", 417)
            head.expects_continue = head.minor == 1  # RFC 9110, 10.1.1: ignored in 1.0
        elif kind == Kind.UPGRADE:
            upgrades.append(value)
        elif kind == Kind.TE:
            head.wants_trailers = head.wants_trailers or b"trailers" in members(value)
    _apply_options(head, options)
    if upgrades and head.minor == 1 and b"upgrade" in options:
        head.upgrades = offered(upgrades)


def read_response(raw: bytes, lines: Lines) -> ResponseHead:
    """Read the head `raw`, up to and with the empty line. Raises Refused (502)."""
    parts = raw.split(b"\r\n")
    if len(parts) < 3 or parts.pop() or parts.pop():
        raise bad_response("the head does not end in an empty line")
    if len(parts) > RESPONSE_FIELDS + 1:
        raise bad_response(f"more than {RESPONSE_FIELDS} field lines", "http_response_header_section_size")
    first = parts.pop(0)
    status, reason, minor = lines.statuses.get(first) or lines.keep_status(first, read_status_line(first))

    known = lines.responses.get
    passed: list[bytes] = []
    fields: dict[bytes, list[bytes]] = {}
    rare: list[Entry] = []
    length: bytes | None = None
    encoded = event_stream = False
    keep_alive = minor == 1
    for line in parts:
        entry = known(line, UNKNOWN)
        if entry is UNKNOWN:
            entry = lines.learn_response(line)
        if entry is None:
            passed.append(line)
            continue
        kind, name, value, spelt = entry
        if kind == _LENGTH:
            if length is not None and length != value:
                raise bad_response("two Content-Length lines that differ")
            length = value
        elif kind == _KEEP_ALIVE:
            keep_alive = True
        elif kind == _NOTED:
            passed.append(spelt)
            fields[name] = [*fields[name], value] if name in fields else [value]
        elif kind == _ASIDE:
            fields[name] = [*fields[name], value] if name in fields else [value]
        elif kind == _RESPELT:
            passed.append(spelt)
        elif kind == _ENCODED:
            passed.append(spelt)
            encoded = True
        elif kind == _EVENT_STREAM:
            passed.append(spelt)
            event_stream = True
        elif kind:
            rare.append(entry)
    head = ResponseHead(
        status, reason, minor, keep_alive, None if length is None else int(length), False, passed, fields
    )
    head.event_stream = event_stream and not encoded
    if rare:
        _settle_response(head, rare)
    if status < 200 or status == 204:
        _drop_announced_body(head)
    return head


def _drop_announced_body(head: ResponseHead) -> None:
    """A 1xx or 204 has no body, whatever it announces (RFC 9110, 8.6; RFC 9112, 6.1). A backend that announces one with
    a 204 may send it a moment later, as the answer to the next request: its connection is not used again."""
    if head.length or head.chunked:
        head.keep_alive = head.keep_alive and head.status != 204
    head.length = None
    head.chunked = False


def _settle_response(head: ResponseHead, rare: list[Entry]) -> None:
    options = _options(rare)
    head.chunked = _chunked(rare, head.length, head.minor, bad_response)
    _apply_options(head, options)
    upgrades = [value for kind, _, value, _ in rare if kind == Kind.UPGRADE]
    if head.status == 426:  # the client is told what it must ask for (RFC 9110, 15.5.22)
        tokens = offered(upgrades)
        head.lines += [b"Upgrade: " + b", ".join(tokens), b"Connection: upgrade"] if tokens else []
    elif head.status == 101 and b"upgrade" in options and len(upgrades) == 1 and is_protocol(upgrades[0]):
        head.upgrade = spelt(upgrades[0])


def passed_upgrades(head: RequestHead, listed: Sequence[str]) -> tuple[bytes, ...]:
    """The protocols that the backend may be asked for, of those that the pool lists. A handshake of a WebSocket is a
    GET without a body (RFC 6455, 4.1)."""
    is_plain_get = head.method == b"GET" and not head.length and not head.chunked
    return passed(head.upgrades, listed, may_be_websocket=is_plain_get) if head.upgrades else ()


def field_values(head: RequestHead, name: bytes) -> list[bytes]:
    """Every value of the field `name` (lower case), wherever it stands: what `hash_key = "header:NAME"` needs."""
    if name == b"host":
        return [head.host]
    if name in head.fields:
        return head.fields[name]
    split = (line.partition(b":") for line in head.lines)
    return [value.strip(b" ") for spelt, _, value in split if spelt.lower() == name]


def _options(rare: list[Entry]) -> set[bytes]:
    """What the Connection lines name. A member that is no token can neither be an option nor name a field."""
    return {option for kind, _, value, _ in rare if kind == Kind.CONNECTION for option in members(value)}


def _apply_options(head: RequestHead | ResponseHead, options: set[bytes]) -> None:
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        head.keep_alive = True
    named = options - OURS - HOP_BY_HOP - {b"close", b"upgrade", b"te"}
    if named:
        head.lines = [line for line in head.lines if line.partition(b":")[0].lower() not in named]
        for name in named:
            head.fields.pop(name, None)


def _chunked(rare: list[Entry], length: int | None, minor: int, refuse: Callable[[str], Refused]) -> bool:
    """True for exactly one `Transfer-Encoding: chunked` that nothing contradicts."""
    codings = [value.lower() for kind, _, value, _ in rare if kind == Kind.CODING]
    if not codings:
        return False
    if length is not None:
        raise refuse("both Content-Length and Transfer-Encoding")
    if minor == 0:
        raise refuse("Transfer-Encoding in HTTP/1.0")
    if codings == [b"chunked"]:
        return True
    coding = codings[0]
    if refuse is bad_response:
        raise bad_response("a transfer coding other than chunked", "http_response_transfer_coding")
    if len(codings) == 1 and is_token(coding) and coding != b"identity" and b"chunked" not in coding:
        raise bad_request("an unknown transfer coding", 501)
    raise bad_request("Transfer-Encoding is not exactly chunked")


def head_of_refused(data: bytes | bytearray) -> RequestHead:
    """A head for the log of a request that is refused: its request line where that can be read, else "-"."""
    line = bytes(data[:MOST_LOGGED_BYTES]).lstrip(b"\r\n").partition(b"\r\n")[0]
    try:
        method, target, authority, minor = read_request_line(line)
    except Refused:
        method, target, authority, minor = b"-", b"-", None, 1
    return RequestHead(method, target, authority or b"", minor, False, None, False, [], {})
