"""What `balance = "hash"` hashes of a request (CONTRACT.md 2: client_ip, header:NAME, cookie:NAME, path)."""

from lbproxy.wire.head import RequestHead, field_values
from lbproxy.wire.headers import ClientFacts, client_of


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
