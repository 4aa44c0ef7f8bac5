"""A request of HTTP/2 as a head of HTTP/1 (RFC 9113, 8): checked, and spelt in bytes that wire.head.read_request reads.

So every rule of HTTP/1 holds for it, too: limits, hop-by-hop fields, what is forwarded and what not. What is malformed
in HTTP/2 raises MalformedMessage, a stream error. What HTTP/1 refuses as well (CONNECT, an unknown expectation, no
host) is spelt as it is, and read_request refuses it with a status.

Nothing that could end a line or a part of the request line passes: every name is a token in lower case, no value has a
control byte, no pseudo-field a blank. A head that is spelt has exactly the fields that were given.
"""

from typing import Final

from lbproxy.wire.body import is_safe_trailer
from lbproxy.wire.http2.errors import MalformedMessage
from lbproxy.wire.http2.hpack import Fields
from lbproxy.wire.http2.static_table import Field
from lbproxy.wire.http2.websocket import KEY, without
from lbproxy.wire.lines import IN_VALUE, canonical, check_host, is_token, spoiling
from lbproxy.wire.startline import IN_TARGET
from lbproxy.wire.upgrades import WEBSOCKET, never_passes

IN_NAME: Final = spoiling(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
# They frame an HTTP/1 message, and say nothing in HTTP/2.
CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_SCHEMES: Final = frozenset((b"http", b"https"))
_MOST_DIGITS: Final = 19
_READ: Final = CONNECTION_SPECIFIC | {b"host", b"content-length", b"cookie", b"te"}


class CheckedFields(dict[Field, bytes]):
    """`checked[field]`: the line of a field that is good, b"" for one that means something here; what is good is kept.

    Bounded in fields and, as long ones are not kept, in bytes; a full memory is dropped whole. One for a worker.
    """

    MOST_FIELDS: Final = 4096
    LONGEST_BYTES: Final = 256

    def __missing__(self, field: Field) -> bytes:
        """Raises MalformedMessage."""
        name, value = field
        check_field(name, value)
        if name in _READ:
            refuse_connection_specific(name, value)
            line = canonical(name, value) if name == b"te" else b""
        else:
            line = canonical(name, value)
        if line and len(line) <= self.LONGEST_BYTES:  # cookies and lengths mostly differ
            if len(self) >= self.MOST_FIELDS:
                self.clear()
            self[field] = line
        return line


def spell_request(
    fields: Fields, *, end: bool, websocket_key: bytes = b"", checked: CheckedFields | None = None
) -> bytes:
    """The head, up to and with the empty line. `end`: no body follows. `checked`: what was found good before.

    An extended CONNECT (RFC 8441) becomes the GET with an Upgrade that it stands for. `websocket_key` is what HTTP/1
    wants to see in that of a WebSocket, 16 random bytes in base64. Raises MalformedMessage.
    """
    if checked is None:
        checked = CheckedFields()
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    crumbs: list[bytes] = []
    host: bytes | None = None
    length: bytes | None = None
    for field in fields:
        name, value = field
        if name[:1] == b":" and not lines:
            if name not in _PSEUDO or name in pseudo:
                raise MalformedMessage("a pseudo-field twice, or one that a request does not have")
            pseudo[name] = value
            continue
        line = checked[field]
        lines.append(line)
        if not line:
            if name == b"cookie":
                crumbs.append(value)
            elif name == b"host":
                if host is not None:
                    raise MalformedMessage("two host fields")
                host = value
            else:
                if length is not None:
                    raise MalformedMessage("two content-length fields")
                length = value
    if crumbs or host is not None or length is not None:
        lines = [line for line in lines if line]
        if crumbs:
            lines.append(canonical(b"cookie", b"; ".join(filter(None, crumbs))))  # RFC 9113, 8.2.3
    start = _request_line(pseudo, lines, websocket_key)
    authority = _authority(pseudo.get(b":authority"), host)
    if length is not None:
        if not length.isdigit() or len(length) > _MOST_DIGITS:
            raise MalformedMessage("a content-length that is not a number")
        if end and int(length):
            raise MalformedMessage("a content-length, and no DATA")
        lines.append(b"content-length: " + length)
    elif not end and b":protocol" not in pseudo:
        lines.append(b"transfer-encoding: chunked")
    if authority is not None:
        return b"\r\n".join((start, b"host: " + authority, *lines, b"", b""))
    return b"\r\n".join((start, *lines, b"", b""))


def trailers_of(fields: Fields) -> list[bytes]:
    """Canonical lines of those that may be passed on, as wire.body keeps them. Raises MalformedMessage."""
    for name, value in fields:
        check_field(name, value)
        refuse_connection_specific(name, value)
    return [canonical(name, value) for name, value in fields if is_safe_trailer(name)]


def check_field(name: bytes, value: bytes) -> None:
    """RFC 9113, 8.2.1, and every byte that HTTP/1 would not take."""
    if not name or name.translate(IN_NAME) != name:
        raise MalformedMessage(_wrong_name(name))
    if value.translate(IN_VALUE) != value:
        raise MalformedMessage(f"a control byte in the value of {name.decode()}")
    if value and (value[0] in b" \t" or value[-1] in b" \t"):
        raise MalformedMessage(f"a blank around the value of {name.decode()}")


def refuse_connection_specific(name: bytes, value: bytes) -> None:
    """RFC 9113, 8.2.2."""
    if name in CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
        raise MalformedMessage(f"{name.decode()}: {value.decode('latin-1')}, which HTTP/2 does not have")


def _wrong_name(name: bytes) -> str:
    if name.startswith(b":"):
        return "a pseudo-field behind a field, or in trailers"
    if name.lower() != name:
        return "a field name in upper case"
    return "a field name that is not a token"


def _request_line(pseudo: dict[bytes, bytes], lines: list[bytes], websocket_key: bytes) -> bytes:
    method = pseudo.get(b":method", b"")
    if not is_token(method):
        raise MalformedMessage(":method is missing, or not a token")
    protocol = pseudo.get(b":protocol")
    if method == b"CONNECT":
        if protocol is None:
            return _connect_line(pseudo)
    elif protocol is not None:
        raise MalformedMessage(":protocol without CONNECT")
    if pseudo.get(b":scheme", b"").lower() not in _SCHEMES:
        raise MalformedMessage(":scheme is missing, or neither http nor https")
    path = pseudo.get(b":path", b"")
    if path.translate(IN_TARGET) != path or (path[:1] != b"/" and (path != b"*" or method != b"OPTIONS")):
        raise MalformedMessage(":path is missing, or not a path")
    if protocol is None:
        return b"%b %b HTTP/1.1" % (method, path)
    if b":authority" not in pseudo or not is_token(protocol):
        raise MalformedMessage("an extended CONNECT without :authority, or with a :protocol that is not a token")
    if never_passes(protocol):
        return b"CONNECT %b HTTP/1.1" % pseudo[b":authority"]  # 501
    lines += [b"connection: Upgrade", b"upgrade: " + protocol]
    if protocol.lower() == WEBSOCKET:
        lines[:] = [*without(lines, KEY), KEY + b" " + websocket_key]
    return b"GET %b HTTP/1.1" % path


def _connect_line(pseudo: dict[bytes, bytes]) -> bytes:
    """RFC 9113, 8.5. read_request answers it with 501."""
    if b":scheme" in pseudo or b":path" in pseudo or not pseudo.get(b":authority"):
        raise MalformedMessage("CONNECT with more than :authority, or without it")
    return b"CONNECT %b HTTP/1.1" % pseudo[b":authority"]


def _authority(authority: bytes | None, host: bytes | None) -> bytes | None:
    """What Host says. None where neither field is there: read_request refuses that."""
    if host is not None:
        _check_host(host)
        if authority is None:
            return host
        if host.lower() != authority.lower():
            raise MalformedMessage(":authority and host differ")
    if authority is not None:
        _check_host(authority)
    return authority


def _check_host(host: bytes) -> None:
    if not host:
        raise MalformedMessage(":authority or host is empty")
    try:
        check_host(host)
    except ValueError as problem:
        raise MalformedMessage(f":authority or host: {problem}") from None
