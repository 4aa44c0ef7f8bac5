"""Headers of both versions at every cut, and what is not one."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.proxy_protocol import (
    SIGNATURE,
    Announced,
    BadProxyHeader,
    Endpoint,
    crc32c,
    own_header,
    proxy_header,
    read_proxy_header,
)

V4 = socket.inet_pton(socket.AF_INET, "192.0.2.7") + socket.inet_pton(socket.AF_INET, "10.0.0.1") + b"\x01\x02\x00\x50"
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "::1") + b"\x01\x02\x00\x50"


def v2(family: int, body: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes((command, family)) + struct.pack("!H", len(body)) + body


def with_checksum(family: int, body: bytes, spoilt: int = 0) -> bytes:
    header = v2(family, body + b"\x03\x00\x04" + bytes(4))
    return header[:-4] + struct.pack("!I", crc32c(header) ^ spoilt)


GOOD = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 80\r\n", "192.0.2.7"),
    (b"PROXY TCP6 2001:DB8::7 ::1 40000 80\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN whatever stands here\r\n", None),
    (v2(0x11, V4), "192.0.2.7"),
    (v2(0x21, V6), "2001:db8::7"),
    (v2(0x31, bytes(216)), None),
    (v2(0x00, b""), None),
    (v2(0x00, b"", 0x20), None),
    (v2(0x11, V4, 0x20), None),
    (v2(0x11, V4 + b"\x20\x00\x03abc\xee\x00\x00"), "192.0.2.7"),
    (with_checksum(0x11, V4), "192.0.2.7"),
]


@pytest.mark.parametrize(("header", "ip"), GOOD)
def test_a_header_is_known_when_its_last_byte_is_there(header: bytes, ip: str | None) -> None:
    for cut in range(1, len(header)):
        assert read_proxy_header(header[:cut]) is None
    for behind in (b"", b"GET / HTTP/1.1\r\n", header):
        port = 40000 if header.startswith(b"PROXY") else 258
        assert read_proxy_header(header + behind) == (Announced(ip, port if ip else 0), len(header))


BAD = [
    b"GET / HTTP/1.1\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 40000\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 80 90\r\n",
    b"PROXY TCP4  192.0.2.7 10.0.0.1 40000 80\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 40000 80\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 40000 80\r\n",
    b"PROXY TCP4 192.0.2.007 10.0.0.1 40000 80\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 80\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 080 80\r\n",
    b"PROXY UDP4 192.0.2.7 10.0.0.1 40000 80\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 80\n" + b"x" * 80,
    b"proxy TCP4 192.0.2.7 10.0.0.1 40000 80\r\n",
    b"PROXY UNKNOWN" + b"x" * 100,
    v2(0x11, V4, 0x22),
    v2(0x11, V4, 0x11),
    v2(0x12, V4),
    v2(0x11, V4[:-1]),
    v2(0x21, V4),
    v2(0x11, V4 + b"\x04\x00"),
    v2(0x11, V4 + b"\x04\x00\x05abcd"),
    v2(0x11, V4 + bytes(5000)),
    with_checksum(0x11, V4, spoilt=1),
    v2(0x11, V4 + b"\x03\x00\x02ab"),
]


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        read_proxy_header(header)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_whatever_comes_nothing_but_a_refusal_is_raised(data: bytes, begin: bytes) -> None:
    try:
        read = read_proxy_header(begin + data)
    except BadProxyHeader:
        return
    assert read is None or 0 < read[1] <= len(begin + data)


def test_the_checksum_is_the_one_of_its_rfc() -> None:
    """RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283


ADDRESSES = ("192.0.2.7", "2001:db8::7", "255.255.255.255", "1111:2222:3333:4444:5555:6666:7777:8888")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("destination", [None, *(Endpoint(ip, 65535) for ip in ADDRESSES)])
@pytest.mark.parametrize("source", [None, *(Endpoint(ip, 65535) for ip in ADDRESSES)])
def test_what_is_written_is_read(version: str, source: Endpoint | None, destination: Endpoint | None) -> None:
    header = proxy_header(version, source, destination)
    read = read_proxy_header(header + b"GET")
    assert read is not None
    announced, end = read
    assert header[end:] == b""
    if source is None:
        assert announced == Announced(None)
        return
    assert announced.ip is not None
    assert announced.ip.removeprefix("::ffff:") in (source.ip, "c000:207", "ffff:ffff")  # IPv4 within IPv6
    assert announced.port == 65535


def test_headers_are_written_like_this() -> None:
    here, client = Endpoint("10.0.0.1", 80), Endpoint("192.0.2.7", 40000)
    assert proxy_header("v1", client, here) == b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 80\r\n"
    assert proxy_header("v1", Endpoint("2001:db8::7", 0), here) == b"PROXY TCP6 2001:db8::7 ::ffff:10.0.0.1 0 80\r\n"
    assert proxy_header("v1", None, here) == own_header("v1") == b"PROXY UNKNOWN\r\n"
    assert proxy_header("v2", client, here) == v2(0x11, bytes((192, 0, 2, 7, 10, 0, 0, 1, 0x9C, 0x40, 0, 80)))
    assert proxy_header("v2", None, here) == v2(0x00, b"")
    assert own_header("v2") == v2(0x00, b"", 0x20)
    assert own_header("off") == b""
