"""What ties a request to a backend: the value that `balance = "hash"` hashes, and the cookie of a sticky pool."""

from typing import NamedTuple, TypeAlias

from lbproxy.model import PoolView
from lbproxy.wire.head import RequestHead, field_values
from lbproxy.wire.headers import ClientFacts, client_of


class StickyKey(NamedTuple):
    """The key of a request to a sticky pool. `hashed`: the key as if the pool were not sticky."""

    token: bytes | None = None  # what its cookie says
    hashed: bytes | None = None
    may_wait: bool = True  # for a slot in its first start


Key: TypeAlias = bytes | StickyKey | None


def key_of(pool: PoolView, head: RequestHead, client: ClientFacts) -> Key:
    """What a claim needs to know of a request: only where `pool.is_keyed`."""
    hashed = hash_key(pool.hash_key, head, client) if pool.balance == "hash" else None
    if pool.sticky is None:
        return hashed
    return StickyKey(_only_cookie(head.lines, pool.sticky.cookie.encode()), hashed)


def still_fits(key: Key, pool: PoolView) -> Key:
    """The key of a request that has waited, as the table in force wants it."""
    return key.hashed if isinstance(key, StickyKey) and pool.sticky is None else key


def hash_key(source: str | None, head: RequestHead, client: ClientFacts) -> bytes | None:
    """None when the request has no such thing: it then goes where there is least to do."""
    if source is None or source == "client_ip":
        return client_of(head, client) or None
    if source == "path":
        return head.target.partition(b"?")[0]
    kind, _, name = source.partition(":")
    if kind == "cookie":
        return _cookie(field_values(head, b"cookie"), name.encode())
    values = field_values(head, name.lower().encode())
    return b",".join(values) or None


def _cookie(fields: list[bytes], name: bytes) -> bytes | None:
    for line in fields:
        for pair in line.split(b";"):
            key, equals, value = pair.strip().partition(b"=")
            if equals and key == name:
                return value
    return None


def _only_cookie(lines: list[bytes], name: bytes) -> bytes | None:
    """None if there are several of that name, too: nobody can tell which of them the browser should have sent."""
    found = None
    begin = name + b"="
    for line in lines:
        if begin not in line or line[:7].lower() != b"cookie:":
            continue  # that is to say most lines, at a third of the price of looking at their names first
        for pair in line[7:].split(b";"):
            pair = pair.strip()
            if pair.startswith(begin):
                if found is not None:
                    return None
                found = pair[len(begin) :]
    return found
