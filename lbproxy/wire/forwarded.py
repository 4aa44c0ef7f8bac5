"""Who the client is behind trusted proxies: X-Forwarded-For, and Forwarded (RFC 7239).

Each proxy adds the address of its own peer at the right end. So the chain is read from there: the client is the first
address that is not trusted, and what stands further left is what that client says of itself. Knows bytes and networks;
headers.py decides which field is read and writes them.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from lbproxy.wire.lines import check_host

UNIX = "unix"  # in trusted_proxies: the peers of a unix listener
REMEMBERED = 4096  # chains, and addresses
LONGEST_REMEMBERED_BYTES = 256
UNKNOWN = b"unknown"  # RFC 7239, 6.2

_with_port = re.compile(rb"(?:\[([0-9A-Fa-f:.%]+)\]|([0-9.]+)):(?:[0-9]{1,5}|_[A-Za-z0-9._-]+)").fullmatch
_obfuscated = re.compile(rb"_[A-Za-z0-9._-]+").fullmatch
_scheme = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,31}").fullmatch
_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
# One parameter, and what ends it. A value may be an address in brackets without the quotes that it should have.
_parameter = re.compile(
    rb"[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:\"((?:[^\"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff])*)\""
    rb"|([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+))[ \t]*)?(;|,|\Z)"
).match


class Hop(NamedTuple):
    """What one proxy says of the request that it got: an element of Forwarded. Empty: nothing is said."""

    node: bytes  # of its peer: for=
    host: bytes = b""
    proto: bytes = b""
    others: tuple[tuple[bytes, bytes], ...] = ()  # by=, extensions


def nodes_of(values: Iterable[bytes]) -> list[bytes]:
    """The members of X-Forwarded-For, from all its lines."""
    return [node for part in b",".join(values).split(b",") if (node := part.strip(b" \t"))]


def hops_of(values: Iterable[bytes]) -> list[Hop] | None:
    """The elements of Forwarded. None: it is malformed, and nothing in it is to be believed."""
    text, at = b",".join(values), 0
    hops: list[Hop] = []
    said: dict[bytes, bytes] = {}
    while True:
        match = _parameter(text, at)
        if match is None:
            return None
        name, quoted, plain, end = match.groups()
        if name is not None:
            name = name.lower()
            if name in said:
                return None
            said[name] = plain if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        if end != b";" and said:
            node, host, proto = (said.pop(known, b"") for known in (b"for", b"host", b"proto"))
            if (proto and not _scheme(proto)) or not _is_host(host):
                return None
            hops.append(Hop(node, host, proto, tuple(said.items())))
            said = {}
        at = match.end()
        if not end:
            return hops


def _is_host(value: bytes) -> bool:
    try:
        check_host(value)
    except ValueError:
        return False
    return True


def spell(hops: Iterable[Hop]) -> bytes:
    """The value of Forwarded."""
    return b", ".join(
        b";".join(
            b"%b=%b" % (name, value if _token(value) else b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", value))
            for name, value in ((b"for", hop.node), (b"host", hop.host), (b"proto", hop.proto), *hop.others)
            if value
        )
        for hop in hops
    )


def node_of(ip: bytes) -> bytes:
    """A member of X-Forwarded-For, or the address of a peer, as for= has it."""
    plain = address_of(ip)
    if plain is None:
        return ip if _obfuscated(ip) else UNKNOWN
    return b"[%b]" % plain if b":" in plain else plain


def address_of(node: bytes) -> bytes | None:
    """The address in a member of either field, without port and brackets; None where it has none."""
    found = _with_port(node)
    if found is not None:
        node = found[1] or found[2]
    elif node[:1] == b"[" and node[-1:] == b"]":
        node = node[1:-1]
    try:
        address = ip_address(node.decode("ascii").partition("%")[0])
    except ValueError:
        return None
    if found is not None and found[1] is not None and address.version == 4:
        return None  # [1.2.3.4]:5
    return str(unmapped(address)).encode()


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address that came through an IPv6 socket is that IPv4 address."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


class Trust:
    """The peers that a listener believes. Remembers what it has judged; a full memory is dropped whole."""

    __slots__ = ("_chains", "_known", "_networks", "unix")

    def __init__(self, proxies: Sequence[str] = ()) -> None:
        self.unix = UNIX in proxies
        self._networks = tuple(ip_network(one) for one in proxies if one != UNIX)
        self._known: dict[bytes, bool] = {}
        self._chains: dict[bytes, bytes] = {}

    def believes(self, ip: bytes) -> bool:
        """`ip`: an address as text; b"": the peer of a unix socket."""
        if not ip:
            return self.unix
        known = self._known.get(ip)
        if known is None:
            address = ip_address(ip.decode())
            known = any(address in network for network in self._networks)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[ip] = known
        return known

    def client_of(self, peer: bytes, values: Sequence[bytes]) -> bytes:
        """The client by the lines of X-Forwarded-For of a trusted peer. A hot path: chains repeat."""
        chain = values[0] if len(values) == 1 else b",".join(values)
        client = self._chains.get(chain)
        if client is None:
            nodes = nodes_of((chain,))
            client, _ = self.find(nodes, b"")
            if len(chain) <= LONGEST_REMEMBERED_BYTES:
                if len(self._chains) >= REMEMBERED:
                    self._chains.clear()
                self._chains[chain] = client
        return client or peer

    def find(self, nodes: Sequence[bytes], peer: bytes) -> tuple[bytes, int]:
        """The client's address, and which of `nodes` it is (len(nodes): the peer). Where the chain has a member without
        an address, the proxy that wrote it is the last one that is known."""
        client, number = peer, len(nodes)
        for at in range(len(nodes) - 1, -1, -1):
            address = address_of(nodes[at])
            if address is None:
                break
            client, number = address, at
            if not self.believes(address):
                break
        return client, number
