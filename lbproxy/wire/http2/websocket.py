"""The handshake of a WebSocket where one side speaks HTTP/2 (RFC 6455, 4.1; RFC 8441, 5).

HTTP/2 has no key. For a client that speaks it the key is ours, and so is the check of the backend's answer; for a
backend that speaks it the answer to the client's key is ours.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import replace

from lbproxy.wire.head import Refused, RequestHead, ResponseHead
from lbproxy.wire.upgrades import WEBSOCKET

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"sec-websocket-key:"
ACCEPT = b"sec-websocket-accept:"


def check_accept(request: RequestHead, head: ResponseHead) -> None:
    """`head`: the 101. Raises Refused where the backend has not read the handshake."""
    if head.upgrade.lower() != WEBSOCKET:
        return
    keys, accepts = _values(request.lines, KEY), _values(head.lines, ACCEPT)
    if len(keys) != 1 or accepts != [accept_of(keys[0])]:
        raise Refused(502, "http_upgrade_failed", "the backend's Sec-WebSocket-Accept does not fit the key")


def switched(request: RequestHead, head: ResponseHead, protocol: bytes) -> ResponseHead:
    """The 101 that a backend's 2xx to an extended CONNECT stands for."""
    lines = without(head.lines, ACCEPT)
    if protocol.lower() == WEBSOCKET and (keys := _values(request.lines, KEY)):
        lines.append(b"Sec-WebSocket-Accept: " + accept_of(keys[0]))
    return replace(head, status=101, reason=b"Switching Protocols", length=None, lines=lines, upgrade=protocol)


def accept_of(key: bytes) -> bytes:
    return b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def without(lines: Iterable[bytes], name: bytes) -> list[bytes]:
    """The lines of all other fields: neither name means anything in HTTP/2 (RFC 8441, 5)."""
    return [line for line in lines if line[: len(name)].lower() != name]


def _values(lines: list[bytes], name: bytes) -> list[bytes]:
    return [line[len(name) :].strip(b" \t") for line in lines if line[: len(name)].lower() == name]
