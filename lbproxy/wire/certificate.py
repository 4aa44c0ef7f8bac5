"""X.509 certificates: PEM text and DER bytes in, the facts that an operator and a backend are told out (RFC 5280).

Verifies nothing: a signature, a purpose or a chain of trust is the business of OpenSSL. Private keys are only noticed.
"""

import binascii
import datetime
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

_END = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]+)-----")
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
CERTIFICATE_LABELS = ("CERTIFICATE", "X509 CERTIFICATE")
KEY_LABEL = "PRIVATE KEY"  # the end of every label of a private key

_INTEGER, _BIT_STRING, _SEQUENCE, _SET, _VERSION, _EXTENSIONS = 0x02, 0x03, 0x30, 0x31, 0xA0, 0xA3
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_BASIC_CONSTRAINTS, _ALTERNATIVE_NAMES = b"\x55\x1d\x13", b"\x55\x1d\x11"
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87
_TRUE = (0x01, b"\xff")
_ENCODINGS = {
    0x0C: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be",
}  # fmt: skip
# The short names of RFC 4514 (3), and those that OpenSSL writes for others that are common in certificates.
_ATTRIBUTES = {
    "2.5.4.3": "CN", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.6": "C",
    "2.5.4.9": "STREET", "0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
    "1.2.840.113549.1.9.1": "emailAddress", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.12": "title",
    "2.5.4.42": "GN", "2.5.4.43": "initials", "2.5.4.46": "dnQualifier", "2.5.4.65": "pseudonym",
    "2.5.4.13": "description", "2.5.4.15": "businessCategory", "2.5.4.17": "postalCode", "2.5.4.41": "name",
    "2.5.4.97": "organizationIdentifier", "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST", "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Certificate:
    subject: str  # RFC 4514: "CN=example.com,O=Example\\, Inc."
    issuer: str
    subject_name: bytes  # the same in DER: what this certificate signed has it as its issuer_name, byte by byte
    issuer_name: bytes
    serial: str  # hexadecimal, upper case
    not_before: float  # seconds of the epoch
    not_after: float
    names: tuple[str, ...]  # DNS names of subjectAltName, lower case: "example.com", "*.example.com"
    addresses: tuple[str, ...]  # IP addresses of subjectAltName
    is_authority: bool


def pem_blocks(text: bytes | bytearray) -> list[tuple[str, bytes]]:
    """The label of each block, and the DER bytes of those that are certificates. Raises ValueError.

    Nothing of a private key is copied.
    """
    blocks = []
    at = 0
    while (begin := _BEGIN.search(text, at)) is not None:
        label = begin[1].decode()
        end = _END.search(text, begin.end())
        if end is None or end[0] != b"-----END %b-----" % begin[1]:
            raise ValueError(f"the block BEGIN {label} has no END {label}")
        is_certificate = label in CERTIFICATE_LABELS
        blocks.append((label, _base64(bytes(text[begin.end() : end.start()]), label) if is_certificate else b""))
        at = end.end()
    return blocks


def _base64(text: bytes, label: str) -> bytes:
    try:
        return binascii.a2b_base64(b"".join(text.split()), strict_mode=True)
    except binascii.Error:
        raise ValueError(f"the block BEGIN {label} is not base64") from None


def read_certificate(der: bytes) -> Certificate:
    """Raises ValueError."""
    try:
        ((_, certificate),) = _elements(der, _SEQUENCE)
        (_, signed), _, _ = _elements(certificate, _SEQUENCE, _SEQUENCE, _BIT_STRING)
        fields = list(_elements(signed))
        if fields[0][0] == _VERSION:
            del fields[0]
        (_, serial), _, (_, issuer), (_, validity), (_, subject), _, *optional = fields
        begin, end = _elements(validity)
        extensions = dict(_extensions(optional))
        names = [*_elements(_inner(extensions[_ALTERNATIVE_NAMES]))] if _ALTERNATIVE_NAMES in extensions else []
        constraints = [*_elements(_inner(extensions[_BASIC_CONSTRAINTS]))] if _BASIC_CONSTRAINTS in extensions else []
        return Certificate(
            name_text(subject),
            name_text(issuer),
            subject,
            issuer,
            _serial(serial),
            _time(*begin),
            _time(*end),
            tuple(value.decode("ascii").lower() for tag, value in names if tag == _DNS_NAME),
            tuple(str(ipaddress.ip_address(value)) for tag, value in names if tag == _IP_ADDRESS),
            constraints[:1] == [_TRUE],
        )
    except (ValueError, IndexError, OverflowError) as exc:
        raise ValueError(f"it cannot be read as an X.509 certificate ({exc})") from None


def _elements(data: bytes, *tags: int) -> list[tuple[int, bytes]]:
    """Tag and content of each element; with `tags` exactly these. Raises ValueError."""
    found = []
    at, size = 0, len(data)
    while at < size:
        tag, length, at = data[at], data[at + 1], at + 2
        if length >= 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or tag & 0x1F == 0x1F:
                raise ValueError("not DER")
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + length > size:
            raise ValueError("cut short")
        found.append((tag, data[at : at + length]))
        at += length
    if tags and tuple(tag for tag, _ in found) != tags:
        raise ValueError("not DER of this kind")
    return found


def _inner(value: bytes) -> bytes:
    ((_, content),) = _elements(value, _SEQUENCE)
    return content


def _extensions(optional: list[tuple[int, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for tag, value in optional:
        if tag == _EXTENSIONS:
            for _, extension in _elements(_inner(value)):
                (_, name), *_, (_, content) = _elements(extension)
                yield name, content


def _serial(content: bytes) -> str:
    number = int.from_bytes(content, "big", signed=True)
    text = f"{abs(number):X}"
    return f"{'-' if number < 0 else ''}{text.zfill(len(text) + len(text) % 2)}"


def _time(tag: int, content: bytes) -> float:
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("not a time")
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text  # RFC 5280, 4.1.2.5.1
    at = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ")
    return at.replace(tzinfo=datetime.UTC).timestamp()


def name_text(name: bytes) -> str:
    """A name as RFC 4514 writes it: "CN=example.com,O=Example\\, Inc.,C=DE". Two attributes in one part stand in the
    order that OpenSSL gives them."""
    parts = [
        "+".join(_attribute(attribute) for _, attribute in reversed(_elements(value)))
        for tag, value in _elements(name)
        if tag == _SET
    ]
    return ",".join(reversed(parts))


def _attribute(content: bytes) -> str:
    (_, type), (tag, value) = _elements(content)
    oid = _object_identifier(type)
    if oid in _ATTRIBUTES and tag in _ENCODINGS:
        try:
            return f"{_ATTRIBUTES[oid]}={_escaped(value.decode(_ENCODINGS[tag]))}"
        except UnicodeDecodeError:
            pass
    length = len(value).to_bytes((len(value).bit_length() + 7) // 8 or 1, "big")
    prefix = bytes([tag]) + (length if len(value) < 0x80 else bytes([0x80 | len(length)]) + length)
    return f"{_ATTRIBUTES.get(oid, oid)}=#{(prefix + value).hex().upper()}"


def _object_identifier(content: bytes) -> str:
    numbers, number = [], 0
    for byte in content:
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def _escaped(text: str) -> str:
    last = len(text) - 1
    return "".join(
        f"\\{ord(char):02X}"
        if char < " " or char == "\x7f"
        else f"\\{char}"
        if char in '"+,;<>\\' or (char in " #" and at == 0) or (char == " " and at == last)
        else char
        for at, char in enumerate(text)
    )
