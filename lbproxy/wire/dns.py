"""One question of the DNS and its answer (RFC 1035): CAA records (RFC 8659) of a name.

Bytes in, facts out. Knows neither sockets nor resolvers; the caller draws the number of the question.
"""

from dataclasses import dataclass

CAA = 257
MOST_BYTES = 4096
_IN = 1
_RECURSION = 0x0100
_ANSWER, _TRUNCATED = 0x8000, 0x0200
_CODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}
_NO_SUCH_NAME = 3
_HEADER = 12


@dataclass(frozen=True, slots=True)
class Caa:
    """`tag`: issue, issuewild, iodef …; `value`: of `issue` the domain of an authority, or nothing: nobody may."""

    is_critical: bool
    tag: str
    value: str


def question(number: int, name: str) -> bytes:
    """Raises ValueError for a name that the DNS cannot have."""
    labels = name.encode("ascii").split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f"{name!r} is no name of the DNS")
    header = b"".join(value.to_bytes(2) for value in (number, _RECURSION, 1, 0, 0, 0))
    written = b"".join(bytes([len(label)]) + label for label in labels)
    return b"%b%b\0%b%b" % (header, written, CAA.to_bytes(2), _IN.to_bytes(2))


def answer(data: bytes, asked: bytes) -> tuple[Caa, ...]:
    """The records; none for a name without any, and for one that is not there. Raises ValueError.

    `asked`: the question. An answer to another one raises LookupError: it is not what is waited for.
    """
    if len(data) < _HEADER or data[:2] != asked[:2] or data[_HEADER : len(asked)].lower() != asked[_HEADER:].lower():
        raise LookupError("an answer to another question")
    flags, count = int.from_bytes(data[2:4]), int.from_bytes(data[6:8])
    if not flags & _ANSWER:
        raise LookupError("no answer")
    code = flags & 15
    if code not in (0, _NO_SUCH_NAME):
        raise ValueError(f"the resolver says {_CODES.get(code, code)}")
    if flags & _TRUNCATED:
        raise ValueError("the answer is too long for UDP")
    at, found = len(asked), []
    for _ in range(count):
        at = _behind_name(data, at)
        kind, length = int.from_bytes(data[at : at + 2]), int.from_bytes(data[at + 8 : at + 10])
        at += 10
        if at + length > len(data):
            raise ValueError("the answer is cut off")
        if kind == CAA:
            found.append(_record(data[at : at + length]))
        at += length
    return tuple(found)


def _record(data: bytes) -> Caa:
    if len(data) < 2 or len(data) < 2 + data[1]:
        raise ValueError("a record is cut off")
    behind = 2 + data[1]
    tag, value = data[2:behind].decode("latin-1").lower(), data[behind:].decode("latin-1")
    return Caa(bool(data[0] & 0x80), tag, value.partition(";")[0].strip().lower() if tag != "iodef" else value)


def _behind_name(data: bytes, at: int) -> int:
    """Names are not read: those of the answer are that of the question, or what an alias leads to."""
    while at < len(data):
        length = data[at]
        if length >= 0xC0:
            return at + 2
        at += 1 + length
        if length == 0:
            return at
    raise ValueError("the answer is cut off")
