"""Header blocks, read (RFC 7541): bytes in, a list of fields out. encoder.py writes them.

One Decoder belongs to one direction of one connection: every block must pass through it, in order, also those of
streams that were reset, or the two dynamic tables differ for ever.

A block that was decoded before, against the dynamic table as it still is, gives the same tuple again: whoever makes
something of a tuple may keep that, and compare with `is`. A client that repeats its requests costs one dictionary
look-up per head; measured: 0.1 us instead of 2 us.
"""

from typing import Final, TypeAlias

from lbproxy.wire.http2.errors import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFailed
from lbproxy.wire.http2.huffman import decode as huffman_decode
from lbproxy.wire.http2.static_table import SIZE, STATIC, Field

Fields: TypeAlias = tuple[Field, ...]

ENTRY_BYTES: Final = 32  # that an entry counts besides its name and value (RFC 7541, 4.1)
HARD_FACTOR: Final = 4  # times the limit of a list: what is larger is not even decoded
REMEMBERED: Final = 16  # blocks
LONGEST_REMEMBERED_BYTES: Final = 1024
_MOST_SHIFT: Final = 28  # an integer of more than five bytes is no length and no index


def _failed(reason: str) -> ConnectionFailed:
    return ConnectionFailed(COMPRESSION_ERROR, reason)


class Decoder:
    __slots__ = ("_known", "_max_bytes", "_max_list_bytes", "_size_bytes", "_table", "_table_bytes", "too_large")

    def __init__(self, max_table_bytes: int = 4096, max_list_bytes: int = 16384) -> None:
        """`max_table_bytes`: what our SETTINGS allow. `max_list_bytes`: of a list of fields, counted as RFC 9113 does
        (6.5.2)."""
        self._max_bytes = max_table_bytes
        self._max_list_bytes = max_list_bytes
        self._table: list[Field] = []  # the newest last
        self._table_bytes = 0
        self._size_bytes = max_table_bytes  # what the peer's encoder has chosen
        self._known: dict[bytes, Fields] = {}
        self.too_large = False  # the last list went over its limit, and is incomplete

    def forget(self) -> None:
        """Give the memory of blocks back: the connection has become idle."""
        self._known = {}

    def decode(self, block: bytes) -> Fields:
        """Raises ConnectionFailed. A list over the limit is read to its end, for the table's sake, and cut short."""
        known = self._known.get(block)
        if known is not None:
            self.too_large = False
            return known
        return self._decode(block)

    def _decode(self, block: bytes) -> Fields:
        fields: list[Field] = []
        left = self._max_list_bytes
        at = self._read_size_updates(block)
        changed = at > 0
        table = self._table
        end = len(block)
        try:
            while at < end:
                byte = block[at]
                at += 1
                if byte & 0x80:  # indexed
                    index = byte & 0x7F
                    if index == 0x7F:
                        index, at = _integer(block, at, 0x7F)
                    if index > SIZE:
                        field = table[SIZE - index]
                    elif index:
                        field = STATIC[index - 1]
                    else:
                        raise _failed("an index of 0")
                else:
                    if byte & 0x40:
                        index = byte & 0x3F
                        if index == 0x3F:
                            index, at = _integer(block, at, 0x3F)
                    elif byte & 0x20:
                        raise _failed("a table size update behind a field")
                    else:
                        index = byte & 0x0F
                        if index == 0x0F:
                            index, at = _integer(block, at, 0x0F)
                    if index > SIZE:
                        name = table[SIZE - index][0]
                    elif index:
                        name = STATIC[index - 1][0]
                    else:
                        name, at = _string(block, at)
                    value, at = _string(block, at)
                    field = (name, value)
                    if byte & 0x40:
                        self._insert(field)
                        changed = True
                left -= len(field[0]) + len(field[1]) + ENTRY_BYTES
                if left >= 0:
                    fields.append(field)
                elif left < -(HARD_FACTOR - 1) * self._max_list_bytes:
                    raise ConnectionFailed(ENHANCE_YOUR_CALM, "a header list far over its limit")
        except IndexError:
            raise _failed("a block that ends too early, or an index beyond the table") from None
        self.too_large = left < 0
        decoded = tuple(fields)
        if changed:
            self._known.clear()
        elif left >= 0 and end <= LONGEST_REMEMBERED_BYTES:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[block] = decoded
        return decoded

    def _read_size_updates(self, block: bytes) -> int:
        """At most two updates may begin a block (RFC 7541, 4.2). Returns where the fields begin."""
        at = 0
        for _ in range(2):
            if at == len(block) or block[at] & 0xE0 != 0x20:
                return at
            size = block[at] & 0x1F
            at += 1
            if size == 0x1F:
                try:
                    size, at = _integer(block, at, 0x1F)
                except IndexError:
                    raise _failed("a table size update that is not whole") from None
            if size > self._max_bytes:
                raise _failed("a table size over our SETTINGS")
            self._size_bytes = size
            self._evict(size)
        return at

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + ENTRY_BYTES
        self._evict(self._size_bytes - size)
        if size <= self._size_bytes:
            self._table.append(field)
            self._table_bytes += size

    def _evict(self, most_bytes: int) -> None:
        count = 0
        while self._table_bytes > most_bytes and count < len(self._table):
            name, value = self._table[count]
            self._table_bytes -= len(name) + len(value) + ENTRY_BYTES
            count += 1
        if count:
            del self._table[:count]


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """The rest of an integer whose prefix was full (RFC 7541, 5.1), and where it ends. Raises IndexError at the end."""
    for shift in range(0, _MOST_SHIFT + 1, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _failed("an integer of too many bytes")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    byte = block[at]
    at += 1
    length = byte & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise _failed("a text that is longer than its block")
    text = block[at:end]
    if byte & 0x80:
        try:
            return huffman_decode(text), end
        except ValueError as problem:
            raise _failed(str(problem)) from None
    return text, end
