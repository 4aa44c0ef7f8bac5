"""The tokens of an Upgrade field (RFC 9110, 7.8): read, chosen, compared. Bytes and names only.

Knows no head as a whole: head.py says whether a message may upgrade at all. A name of a protocol is compared in lower
case and passed on as the client has spelt it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from lbproxy.wire.lines import TOKEN

WEBSOCKET: Final = b"websocket"
# HTTP spoken behind a 101 would pass unread: no rule of HTTP.md would hold for it ("h2c smuggling"). The same holds for
# TLS inside the connection (RFC 2817). A request that offers one of these asks for no upgrade.
_NEVER = frozenset((b"h2c", b"h2", b"h3", b"http", b"shttp", b"tls"))
_protocol = re.compile(TOKEN + rb"(?:/" + TOKEN + rb")?").fullmatch


def is_protocol(token: bytes) -> bool:
    """Whether `token` is a name, with a version or without: `websocket`, `foo/2`."""
    return _protocol(token) is not None


def never_passes(token: bytes) -> bool:
    return token.lower().partition(b"/")[0] in _NEVER


def offered(values: Iterable[bytes]) -> tuple[bytes, ...]:
    """The protocols that the Upgrade lines of a request offer, as spelt; none if one is malformed or never passes."""
    tokens = tuple(member for value in values for part in value.split(b",") if (member := part.strip(b" \t")))
    if any(not is_protocol(token) or never_passes(token) for token in tokens):
        return ()
    return tokens


def passed(offers: Sequence[bytes], listed: Sequence[str], *, may_be_websocket: bool) -> tuple[bytes, ...]:
    """The offered protocols that the pool lists (in lower case)."""
    chosen = []
    for token in offers:
        name = token.lower()
        if name.decode("ascii") in listed and (may_be_websocket or name != WEBSOCKET):
            chosen.append(token)
    return tuple(map(spelt, chosen))


def spelt(token: bytes) -> bytes:
    """The protocol as it is passed on: a WebSocket in its registered spelling, every other one as it came."""
    return WEBSOCKET if token.lower() == WEBSOCKET else token


def is_one_of(token: bytes, asked: Iterable[bytes]) -> bool:
    """Whether `token`, of a 101, is what was asked for."""
    return token.lower() in {one.lower() for one in asked}
