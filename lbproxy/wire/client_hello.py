"""The ClientHello that opens a TLS connection: the name, the protocols and the versions that a client asks for.

Knows bytes: records and the first handshake message (RFC 8446, 4.1.2 and 5.1; RFC 6066, 3; RFC 7301, 3.1).
Knows no key, no socket and no certificate, and answers nothing.
"""

import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

MOST_BYTES = 16 * 1024  # of records that are waited for; a hello with post-quantum keys has less than 2 KiB
_RECORD = 5  # type, version, length
_MOST_IN_RECORD = 2**14
_HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS = 0, 16, 43
_ALPN_BEGINS = b"\0\x10\0"  # its number, and the first byte of its length
_READ = frozenset((_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS))
_head_of_extension = struct.Struct(">HH").unpack_from  # number, length
_request_line = re.compile(rb"[A-Z]{1,64} [!-~]").match
_may_be_request_line = re.compile(rb"[A-Z]{1,64} ?").fullmatch
_host = re.compile(rb"[-_.:0-9A-Za-z]{1,255}").fullmatch


class Spoken(StrEnum):
    """What a client speaks whose first bytes are no ClientHello."""

    HTTP = "plain HTTP"
    SSL2 = "SSL 2"
    BROKEN_TLS = "broken TLS"
    OTHER = "something else than TLS"


class NotClientHello(ValueError):
    """The bytes cannot become a ClientHello. `spoken`: what they look like."""

    def __init__(self, spoken: Spoken, problem: str) -> None:
        super().__init__(problem)
        self.spoken = spoken


@dataclass(frozen=True, slots=True)
class ClientHello:
    server_name: str | None  # lower case, without the dot of the root; None: no name, or one that is no host name
    protocols: tuple[bytes, ...] | None  # of ALPN, as the client prefers them; None: it says nothing of them
    versions: tuple[int, ...]  # 0x0304 is TLS 1.3; also values that mean nothing (GREASE, RFC 8701)


def needs_no_look(data: bytes, protocols: Collection[bytes]) -> bool:
    """True for one record with one whole ClientHello that offers one of these protocols by ALPN, or says nothing of
    ALPN. False where only a reader can tell.

    Costs a fifth of reading it. A name that stands in another place spares a client its alert, and no more.
    """
    if len(data) < _RECORD + 4 or data[0] != _HANDSHAKE or data[1] != 3 or data[5] != _CLIENT_HELLO:
        return False
    size = data[3] << 8 | data[4]
    if len(data) < _RECORD + size or data[6] << 16 | data[7] << 8 | data[8] != size - 4:
        return False
    return _ALPN_BEGINS not in data or any(bytes((len(name),)) + name in data for name in protocols)


class ClientHelloReader:
    """Reads the records of one client as they come. Each byte is looked at once, however small the pieces are."""

    def __init__(self) -> None:
        self._pending = b""  # at most one record that is not complete
        self._message = bytearray()
        self._seen = 0

    def feed(self, data: bytes) -> ClientHello | None:
        """The next bytes of the client. None: more is needed. Raises NotClientHello."""
        pending, at = self._pending + data, 0
        begins = self._seen == len(self._pending)  # no record is complete yet
        self._seen += len(data)
        if begins and not _is_record(pending):
            self._pending = pending
            return None
        while len(record := pending[at : at + _RECORD]) == _RECORD:
            length = int.from_bytes(record[3:], "big")
            if record[0] != _HANDSHAKE or record[1] != 3 or not 0 < length <= _MOST_IN_RECORD:
                raise _broken("a record that is no part of a handshake")
            end = at + _RECORD + length
            if len(pending) < end:
                break
            self._message += pending[at + _RECORD : end]
            at = end
            if (hello := self._complete()) is not None:
                return hello
        self._pending = pending[at:]
        if self._seen >= MOST_BYTES:
            raise _broken(f"no complete ClientHello within {MOST_BYTES} bytes")
        return None

    def _complete(self) -> ClientHello | None:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise _broken("a handshake that does not begin with a ClientHello")
        size = 4 + int.from_bytes(message[1:4], "big")
        return _hello(bytes(message[:size])) if len(message) >= max(size, 4) else None


def _is_record(data: bytes) -> bool:
    """False: that cannot be told yet. Raises NotClientHello for what is no TLS record, and says what it is."""
    if data[:1] in (b"", b"\x16"):
        return data != b""
    if data[0] & 0x80:  # SSL 2: two bytes of length with the top bit set, CLIENT-HELLO, a version
        if len(data) >= 3 and data[2] == 1:
            raise NotClientHello(Spoken.SSL2, "a hello of SSL 2")
        if len(data) < 3:
            return False
    if _request_line(data):
        raise NotClientHello(Spoken.HTTP, "plain HTTP where TLS is expected")
    if not _may_be_request_line(data):
        raise NotClientHello(Spoken.OTHER, "no TLS record")
    return False


def _broken(problem: str) -> NotClientHello:
    return NotClientHello(Spoken.BROKEN_TLS, problem)


# Hot where each request has a connection: offsets in one message instead of objects for its parts, which took 35 us of
# a handshake's 440, and take 8.


def _hello(message: bytes) -> ClientHello:
    """Of a whole message with its header. Extensions that are not read here are for OpenSSL or the backend to judge."""
    size = len(message)
    try:
        session = message[38]
        at = 39 + session
        ciphers = message[at] << 8 | message[at + 1]
        at += 2 + ciphers
        compressions = message[at]
        at += 1 + compressions
        if session > 32 or not ciphers or ciphers % 2 or not compressions or at > size:
            raise _broken("a ClientHello without ciphers or compression methods, or with a strange session")
        found: dict[int, bytes] = {}
        if at < size:
            listed = message[at] << 8 | message[at + 1]
            at += 2
            if at + listed != size:
                raise _broken("extensions that do not end with the ClientHello")
            while at < size:
                number, length = _head_of_extension(message, at)
                end = at + 4 + length
                if end > size:
                    raise _broken("an extension that is cut off")
                if number in _READ:
                    if number in found:
                        raise _broken("an extension that is there twice")
                    found[number] = message[at + 4 : end]
                at = end
    except (IndexError, struct.error):
        raise _broken("a ClientHello that is cut off inside") from None
    name, protocols, versions = found.get(_SERVER_NAME), found.get(_ALPN), found.get(_SUPPORTED_VERSIONS)
    return ClientHello(
        None if name is None else _server_name(name),
        None if protocols is None else _protocols(protocols),
        (message[4] << 8 | message[5],) if versions is None else _versions(versions),
    )


def _listed(value: bytes, size: int) -> bytes:
    """What stands behind its length (of `size` bytes), which is all there is, and not empty."""
    if len(value) <= size or int.from_bytes(value[:size], "big") != len(value) - size:
        raise _broken("an extension that is empty, or has another length than its list")
    return value[size:]


def _server_name(value: bytes) -> str | None:
    listed, at = _listed(value, 2), 0
    names: dict[int, bytes] = {}
    while at < len(listed):
        kind, begin = listed[at], at + 3
        at = begin + int.from_bytes(listed[at + 1 : begin], "big")
        if at > len(listed) or begin >= at or kind in names:
            raise _broken("a server name that is empty or cut off, or two of a kind")
        names[kind] = listed[begin:at]
    host = names.get(0)
    if host is None or not _host(host):
        return None
    return host.decode("ascii").lower().removesuffix(".") or None


def _protocols(value: bytes) -> tuple[bytes, ...]:
    listed, at, found = _listed(value, 2), 0, []
    while at < len(listed):
        begin = at + 1
        at = begin + listed[at]
        if at > len(listed) or begin == at:
            raise _broken("a protocol name that is empty or cut off")
        found.append(listed[begin:at])
    return tuple(found)


def _versions(value: bytes) -> tuple[int, ...]:
    listed = _listed(value, 1)
    if len(listed) % 2:
        raise _broken("half a version")
    return struct.unpack(f">{len(listed) // 2}H", listed)
