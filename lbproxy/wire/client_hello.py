"""The ClientHello that opens a TLS connection: the name, the protocols and the versions that a client asks for.

Knows bytes: records and the first handshake message (RFC 8446, 4.1.2 and 5.1; RFC 6066, 3; RFC 7301, 3.1).
Knows no key, no socket and no certificate, and answers nothing.
"""

import re
import struct
from dataclasses import dataclass
from enum import StrEnum

MOST_BYTES = 16 * 1024  # of records that are waited for; a hello with post-quantum keys has less than 2 KiB
_RECORD = 5  # type, version, length
_MOST_IN_RECORD = 2**14
_HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS = 0, 16, 43
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
        return _hello(_Reader(bytes(message[4:size]))) if len(message) >= max(size, 4) else None


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


class _Reader:
    """Reads vectors from the front of some bytes. Raises NotClientHello where they are cut off."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise _broken("a ClientHello that is cut off inside")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Bytes behind their length, which has `size` bytes."""
        return self.take(self.number(size))


def _hello(reader: _Reader) -> ClientHello:
    legacy_version = reader.number(2)
    reader.take(32)
    session, ciphers, compressions = reader.vector(1), reader.vector(2), reader.vector(1)
    if len(session) > 32 or not ciphers or len(ciphers) % 2 or not compressions:
        raise _broken("a ClientHello without ciphers or compression methods, or with a strange session")
    extensions = _extensions(reader.vector(2)) if reader else {}
    if reader:
        raise _broken("bytes behind the extensions")
    name, protocols, versions = (extensions.get(number) for number in (_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS))
    return ClientHello(
        None if name is None else _server_name(name),
        None if protocols is None else _protocols(protocols),
        (legacy_version,) if versions is None else _versions(versions),
    )


def _extensions(data: bytes) -> dict[int, bytes]:
    """By number. Once for each TLS connection: a dozen extensions cost 4 us here, with a reader's calls 13."""
    extensions: dict[int, bytes] = {}
    at, size = 0, len(data)
    while at < size:
        begin = at + 4
        if begin > size:
            raise _broken("a ClientHello that is cut off inside")
        number = data[at] << 8 | data[at + 1]
        at = begin + (data[at + 2] << 8 | data[at + 3])
        if at > size:
            raise _broken("a ClientHello that is cut off inside")
        if number in extensions:
            raise _broken("an extension that is there twice")
        extensions[number] = data[begin:at]
    return extensions


def _only(data: bytes, size: int) -> _Reader:
    """A list behind its length that is all there is, and not empty."""
    outer = _Reader(data)
    inner = outer.vector(size)
    if outer or not inner:
        raise _broken("an extension that is empty, or has bytes behind its list")
    return _Reader(inner)


def _server_name(value: bytes) -> str | None:
    names: dict[int, bytes] = {}
    listed = _only(value, 2)
    while listed:
        kind, name = listed.number(1), listed.vector(2)
        if kind in names or not name:
            raise _broken("an empty server name, or two of a kind")
        names[kind] = name
    host = names.get(0)
    if host is None or not _host(host):
        return None
    return host.decode("ascii").lower().removesuffix(".") or None


def _protocols(value: bytes) -> tuple[bytes, ...]:
    listed, found = _only(value, 2), []
    while listed:
        found.append(listed.vector(1))
        if not found[-1]:
            raise _broken("an empty protocol name")
    return tuple(found)


def _versions(value: bytes) -> tuple[int, ...]:
    count, rest = divmod(len(value) - 1, 2)
    if count < 1 or rest or value[0] != 2 * count:
        raise _broken("an extension that is empty, or has bytes behind its list")
    return struct.unpack_from(f"!{count}H", value, 1)
