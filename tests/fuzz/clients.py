"""Who the client is, under any bytes: nothing but BadProxyHeader comes out, what is read at one cut is read at every
other, what is believed is an address, and what is spelt anew means the same."""

from ipaddress import ip_address

from fuzz.heads import pieces_of
from lbproxy.wire.forwarded import Trust, address_of, hops_of, nodes_of, spell
from lbproxy.wire.proxy_protocol import (
    MOST_BYTES,
    Announced,
    BadProxyHeader,
    Endpoint,
    proxy_header,
    read_proxy_header,
)

_CUTS = 300
TRUST = Trust(("10.0.0.0/8", "fd00::/8"))
PEER = b"10.9.9.9"


def proxy(data: bytes) -> None:
    pieces, raw = pieces_of(data)
    whole = _read_header(raw)
    so_far = b""
    for piece in pieces:
        so_far += piece
        early = _read_header(so_far)
        assert early in (None, whole), "another cut, another reading"
    for cut in range(1, min(len(raw), _CUTS)):
        assert _read_header(raw[:cut]) in (None, whole)
    if whole is None or whole == "bad":
        return
    announced, end = whole
    assert isinstance(announced, Announced)
    assert 0 < end <= MOST_BYTES
    if announced.ip is not None:
        assert str(ip_address(announced.ip)) == announced.ip
        for version in ("v1", "v2"):
            again = read_proxy_header(proxy_header(version, Endpoint(announced.ip, announced.port), None))
            assert again is not None
            assert again[0].port == announced.port


def _read_header(raw: bytes) -> tuple[Announced, int] | str | None:
    try:
        return read_proxy_header(raw)
    except BadProxyHeader:
        return "bad"


def forwarded(data: bytes) -> None:
    values, raw = pieces_of(data)
    client = TRUST.client_of(PEER, values)
    assert client == TRUST.client_of(PEER, [b",".join(values)])
    assert client == TRUST.find(nodes_of(values), PEER)[0]
    assert address_of(client) == client
    # A client that writes this itself, with one trusted proxy behind it.
    assert TRUST.client_of(PEER, [raw, b"192.0.2.7"]) == b"192.0.2.7"
    hops = hops_of(values)
    if hops is not None:
        assert hops_of([spell(hops)]) == hops
        assert b"\r" not in spell(hops)
        assert b"\n" not in spell(hops)
