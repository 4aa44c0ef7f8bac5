"""A request of HTTP/2 as a head of HTTP/1 (RFC 9113, 8): checked, and spelt in bytes that wire.head.read_request reads.

So every rule of HTTP/1 holds for it, too: limits, hop-by-hop fields, what is forwarded and what not. What is malformed
in HTTP/2 raises MalformedMessage, a stream error. What HTTP/1 refuses as well (CONNECT, an unknown expectation, no
host) is spelt as it is, and read_request refuses it with a status.

Nothing that could end a line or a part of the request line passes: every name is a token in lower case, no value has a
control byte, no pseudo-field a blank. A head that is spelt has exactly the fields that were given.
"""

from collections.abc import Iterator
from typing import Final

from lbproxy.wire.body import is_safe_trailer
from lbproxy.wire.http2.errors import MalformedMessage
from lbproxy.wire.http2.hpack import Fields
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
_KEY: Final = b"sec-websocket-key:"


def spell_request(fields: Fields, *, end: bool, websocket_key: bytes = b"") -> bytes:
    """The head, up to and with the empty line. `end`: no body follows.

    An extended CONNECT (RFC 8441) becomes the GET with an Upgrade that it stands for. `websocket_key` is what HTTP/1
    wants to see in that of a WebSocket, 16 random bytes in base64. Raises MalformedMessage.
    """
    pseudo, begin = _pseudo_fields(fields)
    lines: list[bytes] = []
    crumbs: list[bytes] = []
    host: bytes | None = None
    length: bytes | None = None
    for number in range(begin, len(fields)):
        name, value = fields[number]
        check_field(name, value)
        if name in _READ:
            if name == b"host":
                if host is not None:
                    raise MalformedMessage("two host fields")
                host = value
                continue
            if name == b"content-length":
                if length is not None:
                    raise MalformedMessage("two content-length fields")
                length = value
                continue
            if name == b"cookie":
                crumbs.append(value)
                continue
            refuse_connection_specific(name, value)
        lines.append(canonical(name, value))
    if crumbs:
        lines.append(canonical(b"cookie", b"; ".join(crumbs)))  # RFC 9113, 8.2.3
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
        lines.insert(0, canonical(b"host", authority))
    return b"\r\n".join((start, *lines, b"", b""))


_READ: Final = CONNECTION_SPECIFIC | {b"host", b"content-length", b"cookie", b"te"}


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


def _pseudo_fields(fields: Fields) -> tuple[dict[bytes, bytes], int]:
    """The pseudo-fields, and where the others begin."""
    pseudo: dict[bytes, bytes] = {}
    number = 0
    for name, value in fields:
        if name[:1] != b":":
            break
        if name not in _PSEUDO:
            raise MalformedMessage("a pseudo-field that a request does not have")
        if name in pseudo:
            raise MalformedMessage(f"two fields {name.decode()}")
        pseudo[name] = value
        number += 1
    return pseudo, number


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
        lines[:] = [line for line in lines if not line.startswith(_KEY)]
        lines.append(_KEY + b" " + websocket_key)
    return b"GET %b HTTP/1.1" % path


def _connect_line(pseudo: dict[bytes, bytes]) -> bytes:
    """RFC 9113, 8.5. read_request answers it with 501."""
    if b":scheme" in pseudo or b":path" in pseudo or not pseudo.get(b":authority"):
        raise MalformedMessage("CONNECT with more than :authority, or without it")
    return b"CONNECT %b HTTP/1.1" % pseudo[b":authority"]


def _authority(authority: bytes | None, host: bytes | None) -> bytes | None:
    """What Host says. None where neither field is there: read_request refuses that."""
    for value in _given(authority, host):
        if not value:
            raise MalformedMessage(":authority or host is empty")
        try:
            check_host(value)
        except ValueError as problem:
            raise MalformedMessage(f":authority or host: {problem}") from None
    if authority is None:
        return host
    if host is not None and host.lower() != authority.lower():
        raise MalformedMessage(":authority and host differ")
    return authority


def _given(*values: bytes | None) -> Iterator[bytes]:
    return (value for value in values if value is not None)
