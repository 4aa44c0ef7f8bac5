"""The PROXY protocol, versions 1 and 2: the address that a load balancer in front announces before the first byte.

Knows bytes ("The PROXY protocol", versions 1 and 2, by its authors at HAProxy).
Knows no socket, and does not judge who may announce an address.
"""

import struct
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

V1_BYTES = 107  # the longest line of version 1, with its end
MOST_BYTES = 4096  # of a version 2 header: addresses, and TLVs that nothing here reads
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16  # signature, version and command, family, length
# Bytes of the source, what reads it, bytes of all addresses.
_FAMILIES = {0x11: (4, IPv4Address, 12), 0x21: (16, IPv6Address, 36), 0x31: (0, None, 216), 0x00: (0, None, 0)}
_TCP: dict[bytes, type[IPv4Address] | type[IPv6Address]] = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}
_CHECKSUM = 0x03  # TLV PP2_TYPE_CRC32C


class BadProxyHeader(ValueError):
    """The bytes are no PROXY header, or one that contradicts itself."""


class Endpoint(NamedTuple):
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Announced:
    """`ip`: the client's address as text; None: the peer speaks for itself (LOCAL, UNKNOWN, a unix socket)."""

    ip: str | None
    port: int = 0


def read_proxy_header(data: bytes) -> tuple[Announced, int] | None:
    """What the header announces and where it ends; None while it is incomplete. Raises BadProxyHeader."""
    if data.startswith(SIGNATURE[: len(data)]):
        return _read_v2(data)
    if data.startswith(b"PROXY "[: len(data)]):
        return _read_v1(data)
    raise BadProxyHeader("no PROXY header")


def _read_v1(data: bytes) -> tuple[Announced, int] | None:
    line, end, _ = data[:V1_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= V1_BYTES:
            raise BadProxyHeader("a line of version 1 without its end")
        return None
    words = line.split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return Announced(None), len(line) + 2
    if len(words) != 6 or words[1] not in _TCP:
        raise BadProxyHeader("a line of version 1 is not PROXY TCP4|TCP6 source destination port port")
    ips = [_ip(_TCP[words[1]], word) for word in words[2:4]]
    for port in words[4:]:
        if not port.isdigit() or len(port) > 5 or int(port) > 65535 or (len(port) > 1 and port[:1] == b"0"):
            raise BadProxyHeader("a port that is not a number up to 65535")
    return Announced(ips[0], int(words[4])), len(line) + 2


def _ip(kind: type[IPv4Address] | type[IPv6Address], word: bytes) -> str:
    try:
        return str(kind(word.decode("ascii")))
    except ValueError:
        raise BadProxyHeader("an address that is not of its family") from None


def _read_v2(data: bytes) -> tuple[Announced, int] | None:
    if len(data) < _FIXED:
        return None
    command, family, length = data[12], data[13], struct.unpack("!H", data[14:16])[0]
    if command not in (0x20, 0x21):
        raise BadProxyHeader("another version than 2, or an unknown command")
    end = _FIXED + length
    if end > MOST_BYTES:
        raise BadProxyHeader(f"a header of more than {MOST_BYTES} bytes")
    if len(data) < end:
        return None
    header = data[:end]
    if command == 0x20:  # LOCAL: whatever it carries is to be skipped
        return Announced(None), end
    if family not in _FAMILIES:
        raise BadProxyHeader("another family or transport than TCP over IPv4 or IPv6, or a unix socket")
    size, kind, addresses = _FAMILIES[family]
    if length < addresses:
        raise BadProxyHeader("a header that is shorter than its addresses")
    _check_tlvs(header, _FIXED + addresses)
    if kind is None:
        return Announced(None), end
    (port,) = struct.unpack("!H", header[_FIXED + 2 * size : _FIXED + 2 * size + 2])
    return Announced(str(kind(header[_FIXED : _FIXED + size])), port), end


def _check_tlvs(header: bytes, at: int) -> None:
    """Every TLV fits, and a checksum is right."""
    while at < len(header):
        if at + 3 > len(header):
            raise BadProxyHeader("a TLV that is cut off")
        length = struct.unpack("!H", header[at + 1 : at + 3])[0]
        value = at + 3
        if value + length > len(header):
            raise BadProxyHeader("a TLV that is longer than its header")
        if header[at] == _CHECKSUM:
            if length != 4:
                raise BadProxyHeader("a checksum that has not four bytes")
            told = struct.unpack("!I", header[value : value + 4])[0]
            if told != crc32c(header[:value] + bytes(4) + header[value + 4 :]):
                raise BadProxyHeader("a wrong checksum")
        at = value + length


def proxy_header(version: str, source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """`version`: v1 or v2. Without a source: a client that has no address. Without a destination: any address.

    Both are of one family in a header, so of two different ones the IPv4 address is written as an IPv6 address.
    """
    if source is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else SIGNATURE + b"\x21\x00\x00\x00"
    ips = [ip_address(source.ip), ip_address("0.0.0.0" if destination is None else destination.ip)]
    if ips[0].version != ips[1].version:
        ips = [IPv6Address(f"::ffff:{ip}") if isinstance(ip, IPv4Address) else ip for ip in ips]
    ports = source.port, destination.port if destination is not None else 0
    if version == "v1":
        one, two = (_text(ip) for ip in ips)
        return f"PROXY TCP{ips[0].version} {one} {two} {ports[0]} {ports[1]}\r\n".encode()
    addresses = b"".join(ip.packed for ip in ips) + struct.pack("!HH", *ports)
    family = 0x11 if ips[0].version == 4 else 0x21
    return SIGNATURE + struct.pack("!BBH", 0x21, family, len(addresses)) + addresses


def _text(ip: IPv4Address | IPv6Address) -> str:
    """The address as inet_ntop(3) writes it: the reader may compare it with its own."""
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return str(ip) if mapped is None else f"::ffff:{mapped}"


def own_header(version: str) -> bytes:
    """The header of a connection that is for no client, such as a probe. `version`: "off" too."""
    if version == "off":
        return b""
    return b"PROXY UNKNOWN\r\n" if version == "v1" else SIGNATURE + b"\x20\x00\x00\x00"


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as RFC 3720 has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _table()[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    rows = []
    for row in range(256):
        for _ in range(8):
            row = (row >> 1) ^ (0x82F63B78 if row & 1 else 0)
        rows.append(row)
    return tuple(rows)
