"""Field lines of HTTP/1: their grammar, what they mean to a proxy, and a bounded memory of those seen before.

Most lines a proxy sees it has seen a moment ago. A line that passed the grammar once is looked up from then on:
`None` says "end-to-end and well spelt, pass it on as it is"; a tuple says what the line means. A line that is refused
is not remembered. Knows single lines only: what they mean together (two Hosts, a length and a coding) is head.py's.
"""

import re
from collections.abc import Iterable
from enum import IntEnum
from ipaddress import AddressValueError, IPv6Address
from typing import Final, TypeAlias, TypeVar

from lbproxy.errors import LbproxyError


class Refused(LbproxyError):
    """A message that is not forwarded: the status it is answered with, and the RFC 9209 (2.3) error type."""

    def __init__(self, status: int, token: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.token = token
        self.reason = reason


def bad_request(reason: str, status: int = 400) -> Refused:
    return Refused(status, "http_request_error", reason)


def bad_response(reason: str, token: str = "http_protocol_error") -> Refused:
    return Refused(502, token, reason)


class Kind(IntEnum):
    """What a remembered line is. head.py keeps to the plain ints: `is` on a member costs an attribute look-up."""

    DROPPED = 0  # hop-by-hop, or a spelling that would be taken for a field we set
    RESPELT = 1  # end-to-end, passed on in its canonical spelling
    NOTED = 2  # end-to-end, and lbproxy reads it too
    ASIDE = 3  # read by lbproxy, and passed on only by headers.py
    HOST = 4
    LENGTH = 5
    KEEP_ALIVE = 6  # Connection: keep-alive, and nothing else in it
    CONNECTION = 7
    CODING = 8  # Transfer-Encoding
    EXPECT = 9
    UPGRADE = 10
    TE = 11
    EVENT_STREAM = 12  # Content-Type: text/event-stream
    ENCODED = 13  # Content-Encoding, other than identity


# (kind, lower-case name, value without blanks around it, the line as it is passed on)
Entry: TypeAlias = tuple[int, bytes, bytes, bytes]
# What startline.py makes of the first line: method, target, host or None, minor version; status, reason, minor version.
Start: TypeAlias = tuple[bytes, bytes, bytes | None, int]
Status: TypeAlias = tuple[int, bytes, int]
Known = TypeVar("Known")

TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
# Values may hold HTAB, SP, visible ASCII and bytes >= 0x80 (obs-text). Blanks around them are stripped in Python: one
# linear match here, nothing to backtrack into.
_field = re.compile(rb"(" + TOKEN + rb"):([\t -~\x80-\xff]*)").fullmatch


def spoiling(allowed: Iterable[int]) -> bytes:
    """A table for bytes.translate that leaves the allowed bytes as they are and changes every other one.

    `text.translate(table) == text` asks whether all are allowed in half the time of deleting them (which builds a
    table for each call) and in a fifth of a regular expression's.
    """
    kept = frozenset(allowed)
    return bytes(byte if byte in kept else byte ^ 1 for byte in range(256))


IN_VALUE: Final = spoiling((9, *range(32, 127), *range(128, 256)))
is_token = re.compile(TOKEN).fullmatch
_host = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[-._~!$&'()*+;=%0-9A-Za-z]+)(?::([0-9]{1,5}))?").fullmatch
_length = re.compile(rb"[0-9]{1,19}").fullmatch

# Control bytes, a LF without its CR, a CR without its LF. A CR at the very end may still get one.
IMPOSSIBLE: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?![\n]|\Z)").search

PASSED: Final = b"1.1 lbproxy"  # what each lbproxy adds to Via, in one line
MOST_PASSES: Final = 10  # a target may lead back to a listener of its own; more lbproxys than this stand in no row

HOP_BY_HOP: Final = frozenset(
    b"keep-alive proxy-connection trailer proxy-authenticate proxy-authorization proxy-authentication-info proxy "
    b"http2-settings".split()
)
# Framing, routing and what we set: no Connection field can remove these, no trailer can carry them.
OURS: Final = frozenset(
    b"host content-length transfer-encoding expect x-forwarded-for x-forwarded-proto x-forwarded-host forwarded "
    b"x-request-id via".split()
)
# What a backend is told of its client's certificate: by us (client_certificate.py), and by other proxies (RFC 9440).
CLIENT_CERTIFICATE: Final = frozenset(
    b"x-client-cert-subject x-client-cert-serial x-client-cert-verified client-cert client-cert-chain".split()
)
_GUARDED: Final = HOP_BY_HOP | OURS | CLIENT_CERTIFICATE | {b"connection", b"te", b"upgrade", b"x-real-ip"}

REQUEST_KINDS: Final[dict[bytes, Kind]] = {
    **dict.fromkeys(HOP_BY_HOP | CLIENT_CERTIFICATE, Kind.DROPPED),
    **dict.fromkeys(b"accept user-agent referer".split(), Kind.NOTED),
    **dict.fromkeys(b"x-request-id via x-real-ip forwarded".split(), Kind.ASIDE),
    b"host": Kind.HOST,
    b"content-length": Kind.LENGTH,
    b"connection": Kind.CONNECTION,
    b"transfer-encoding": Kind.CODING,
    b"expect": Kind.EXPECT,
    b"upgrade": Kind.UPGRADE,
    b"te": Kind.TE,
}
RESPONSE_KINDS: Final[dict[bytes, Kind]] = {
    **dict.fromkeys(HOP_BY_HOP, Kind.DROPPED),
    **dict.fromkeys(b"x-request-id via".split(), Kind.ASIDE),
    b"retry-after": Kind.NOTED,
    b"content-length": Kind.LENGTH,
    b"connection": Kind.CONNECTION,
    b"transfer-encoding": Kind.CODING,
    b"upgrade": Kind.UPGRADE,
    b"te": Kind.DROPPED,
    b"content-type": Kind.EVENT_STREAM,
    b"content-encoding": Kind.ENCODED,
}


def split_field(line: bytes) -> tuple[bytes, bytes]:
    """Name as spelt and value without the blanks around it. Raises ValueError with what is wrong."""
    match = _field(line)
    if match is None:
        raise ValueError(_what_is_wrong(line))
    return match[1], match[2].strip(b" \t")


def canonical(name: bytes, value: bytes) -> bytes:
    return name + b": " + value if value else name + b":"


def impersonates(name: bytes) -> bool:
    """True for a lower-case name that some servers would read as a field we set: `x_forwarded_for`."""
    if b"_" not in name:
        return False
    dashed = name.replace(b"_", b"-")
    return dashed in _GUARDED or dashed.startswith(b"x-forwarded-")


def members(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, in lower case, without empty ones (RFC 9110, 5.6.1)."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]


def check_host(value: bytes) -> None:
    """Raise ValueError unless `value` is a host with an optional port; empty is allowed (RFC 9110, 7.2)."""
    if not value:
        return
    match = _host(value)
    if match is None:
        raise ValueError("Host is not a host name with an optional port")
    literal, port = match.groups()
    if port is not None and not 0 < int(port) < 65536:
        raise ValueError("Host has a port out of range")
    if literal is not None:
        try:
            IPv6Address(literal.decode())
        except AddressValueError:
            raise ValueError("Host is not an IPv6 address") from None


def fold_length(value: bytes) -> bytes:
    """One length out of `3` or `3, 3`. Raises ValueError when it is none, or when the members differ."""
    if _length(value):
        return value
    parts = {part.strip(b" \t") for part in value.split(b",")}
    if len(parts) != 1 or not _length(only := parts.pop()):
        raise ValueError("Content-Length is not one plain number")
    return only


def _what_is_wrong(line: bytes) -> str:
    if b"\n" in line or b"\r" in line:
        return "a line ends in a bare CR or LF"
    if not line or line[0] in b" \t":
        return "a field line begins with a blank (obsolete folding)" if line else "an empty line inside a head"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "a field line without a colon"
    if not name:
        return "a field without a name"
    if name[-1] in b" \t":
        return "a blank before the colon of a field"
    return "a field name is not a token" if not is_token(name) else "a control byte in a field value"


class Lines:
    """The memory of start lines and field lines that were found good, for requests and for responses.

    Bounded in lines and, as long lines are not kept, in bytes. A full memory is dropped whole, which costs
    a client of lines that all differ nothing, and the others one miss per line: no order of use is kept, because
    keeping it would cost more on every look-up than a miss now and then.
    """

    __slots__ = (
        "_last_start",
        "_max_bytes",
        "_max_lines",
        "_plain_in_requests",
        "_plain_in_responses",
        "requests",
        "responses",
        "starts",
        "statuses",
    )

    def __init__(self, max_lines: int = 4096, max_line_bytes: int = 256) -> None:
        self._max_lines = max_lines  # of each of the four
        self._max_bytes = max_line_bytes
        self.requests: dict[bytes, Entry | None] = {}
        self.responses: dict[bytes, Entry | None] = {}
        self.starts: dict[bytes, Start] = {}
        self.statuses: dict[bytes, Status] = {}
        # Names, as spelt, that were found to mean nothing, with their last line: of the next one only the value is
        # looked at.
        self._plain_in_requests: dict[bytes, bytes] = {}
        self._plain_in_responses: dict[bytes, bytes] = {}
        self._last_start = b""

    def learn_request(self, line: bytes) -> Entry | None:
        """The meaning of a field line of a request; remembered if it is likely to come again. Raises Refused."""
        if self._is_plain(self._plain_in_requests, self.requests, line):
            return None
        try:
            entry = _request_entry(line)
        except ValueError as problem:
            raise bad_request(str(problem)) from None
        if entry is None:
            self._keep_plain(self._plain_in_requests, line)
        self._keep(self.requests, line, entry)
        return entry

    def learn_response(self, line: bytes) -> Entry | None:
        if self._is_plain(self._plain_in_responses, self.responses, line):
            return None
        try:
            entry = _response_entry(line)
        except ValueError as problem:
            raise bad_response(str(problem)) from None
        if entry is None and line.partition(b":")[0].lower() not in RESPONSE_KINDS:  # Content-Type may mean something
            self._keep_plain(self._plain_in_responses, line)
        self._keep(self.responses, line, entry)
        return entry

    def keep_start(self, line: bytes, start: Start) -> Start:
        """Remember a request line with its meaning if it comes twice in a row: many never come again."""
        if line == self._last_start:
            self._keep(self.starts, line, start)
        elif len(line) <= self._max_bytes:
            self._last_start = line
        return start

    def keep_status(self, line: bytes, status: Status) -> Status:
        self._keep(self.statuses, line, status)
        return status

    def _is_plain(self, names: dict[bytes, bytes], memory: dict[bytes, Entry | None], line: bytes) -> bool:
        """A name that is known to mean nothing, and a value that is canonical as it stands.

        Such a line is remembered only when it comes twice in a row. Trace ids and cookies mostly do not: remembering
        them would cost more than looking at them, and push out what does repeat.
        """
        name, _, value = line.partition(b": ")
        last = names.get(name)
        if last is None or not value or value.translate(IN_VALUE) != value or value[0] <= 32 or value[-1] <= 32:
            return False
        if line == last:
            self._keep(memory, line, None)
        elif len(line) <= self._max_bytes:
            names[name] = line
        return True

    def _keep(self, memory: dict[bytes, Known], line: bytes, known: Known) -> None:
        if len(line) <= self._max_bytes:
            if len(memory) >= self._max_lines:
                memory.clear()
            memory[line] = known

    def _keep_plain(self, names: dict[bytes, bytes], line: bytes) -> None:
        name, colon, value = line.partition(b": ")
        if colon and value and len(name) <= self._max_bytes:  # "A:" has no ": ", and `name` would be all of it
            if len(names) >= self._max_lines:
                names.clear()
            names[name] = b""


def _request_entry(line: bytes) -> Entry | None:
    name, value = split_field(line)
    lower = name.lower()
    spelt = canonical(name, value)
    kind = REQUEST_KINDS.get(lower)
    if kind is None:
        if lower.startswith(b"x-forwarded-") and b"_" not in lower:
            return Kind.ASIDE.value, lower, value, spelt
        if impersonates(lower):
            return Kind.DROPPED.value, lower, value, spelt
        return None if spelt == line else (Kind.RESPELT.value, lower, value, spelt)
    if kind is Kind.HOST:
        check_host(value)
    elif lower == b"via" and value.count(PASSED) > MOST_PASSES:
        raise Refused(502, "proxy_loop_detected", f"the request has come through lbproxy more than {MOST_PASSES} times")
    return _settled(kind, lower, value, spelt)


def _response_entry(line: bytes) -> Entry | None:
    name, value = split_field(line)
    lower = name.lower()
    spelt = canonical(name, value)
    kind = RESPONSE_KINDS.get(lower)
    if kind is Kind.EVENT_STREAM:
        kind = kind if value.partition(b";")[0].strip(b" \t").lower() == b"text/event-stream" else None
    elif kind is Kind.ENCODED:
        kind = kind if value.lower() != b"identity" else None
    if kind is None:
        return None if spelt == line else (Kind.RESPELT.value, lower, value, spelt)
    return _settled(kind, lower, value, spelt)


def _settled(kind: Kind, lower: bytes, value: bytes, spelt: bytes) -> Entry:
    """Entries that both directions read alike. They hold plain ints: comparing them to enum members would be slower."""
    if kind is Kind.LENGTH:
        value = fold_length(value)
    elif kind is Kind.CONNECTION and value.lower() == b"keep-alive":
        kind = Kind.KEEP_ALIVE
    return kind.value, lower, value, spelt
