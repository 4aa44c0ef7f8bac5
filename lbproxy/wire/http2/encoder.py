"""Header blocks, written (RFC 7541) without a dynamic table: a block is a function of its fields alone.

So a block that was made once is good for every connection, and what repeats is looked up. nginx does the same. What it
costs: a field that the client could have kept in its table is sent again with every answer, in Huffman code.
"""

from typing import Final

from lbproxy.wire.http2 import huffman
from lbproxy.wire.http2.static_table import STATIC

NO_TABLE: Final = b"\x20"  # a size update to 0: owed to a peer whose SETTINGS allow less than 4096 bytes

_WHOLE: Final = {field: bytes((0x80 | number,)) for number, field in enumerate(STATIC, 1) if field[1]}
_NAMES: Final = {name: number for number, (name, _) in reversed(list(enumerate(STATIC, 1)))}
# What no table of a later hop may hold either: one who shares that table could guess it (RFC 7541, 7.1.3).
_SECRET: Final = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-csrf-token"))
_LITERAL: Final = 0x00
_NEVER_INDEXED: Final = 0x10
LONGEST_IN_HUFFMAN_BYTES: Final = 1024


def integer(value: int, first: int, most: int) -> bytes:
    """`first`: the bits before the prefix. `most`: the largest number that the prefix can hold."""
    if value < most:
        return bytes((first | value,))
    parts = [first | most]
    value -= most
    while value >= 0x80:
        parts.append(0x80 | value & 0x7F)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def string(text: bytes) -> bytes:
    """A string literal, in Huffman code where that is shorter."""
    if len(text) <= LONGEST_IN_HUFFMAN_BYTES:
        code = huffman.encode(text)
        if len(code) < len(text):
            return integer(len(code), 0x80, 0x7F) + code
    return integer(len(text), 0x00, 0x7F) + text


def plain_string(text: bytes) -> bytes:
    return integer(len(text), 0x00, 0x7F) + text


def begun_field(name: bytes) -> bytes:
    """The beginning of a literal field, with its name (lower case)."""
    first = _NEVER_INDEXED if name in _SECRET else _LITERAL
    number = _NAMES.get(name)
    return integer(number, first, 0x0F) if number else bytes((first,)) + string(name)


def field(name: bytes, value: bytes) -> bytes:
    """`name` in lower case."""
    return _WHOLE.get((name, value)) or begun_field(name) + string(value)


def fresh_field(name: bytes, value: bytes) -> bytes:
    """Same as `field`, for a value that does not come again: Huffman code would cost more than it saves."""
    return begun_field(name) + plain_string(value)


class EncodedLines(dict[bytes, bytes]):
    """Field lines as HTTP/1 spells them, `Name: value`, each with its bytes in a header block: `encoded[line]`.

    Bounded: a full memory is dropped whole. One for a worker: a block says the same on every connection.
    """

    MOST_LINES: Final = 4096
    LONGEST_BYTES: Final = 256

    def __missing__(self, line: bytes) -> bytes:
        name, _, value = line.partition(b":")
        made = field(name.lower(), value.strip(b" \t"))
        if len(line) <= self.LONGEST_BYTES:
            if len(self) >= self.MOST_LINES:
                self.clear()
            self[line] = made
        return made
