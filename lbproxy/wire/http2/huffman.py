"""The Huffman code of HPACK (RFC 7541, 5.2 and appendix B).

The code is canonical: the length of each symbol's code says everything. Decoding takes a byte at a time through rows of
256 transitions, one row for each inner node of the code's tree. A row is made when a text first needs it: usual texts
need about thirty of the 256.
"""

from typing import Final, TypeAlias

EOS: Final = 256

# Length in bits of the code of each symbol, 0 to 255 and EOS.
_LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)

# By the next byte: the state behind it, and the text that it completes; None where EOS stands. Of all 256 rows, which a
# client can ask for, pairs would take 6.5 MB; this takes two.
Row: TypeAlias = tuple[bytes, list[bytes | None]]


def _codes() -> list[int]:
    codes = [0] * 257
    code = length = 0
    for symbol in sorted(range(257), key=lambda symbol: (_LENGTHS[symbol], symbol)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        codes[symbol] = code
        code += 1
    return codes


_CODES: Final = _codes()


def _tree() -> list[list[int]]:
    """Inner nodes, the root first. A child is the number of an inner node, or ~symbol."""
    nodes = [[0, 0]]
    for symbol, (code, length) in enumerate(zip(_CODES, _LENGTHS, strict=True)):
        at = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if not nodes[at][bit]:
                nodes.append([0, 0])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
        nodes[at][code & 1] = ~symbol
    return nodes


_NODES: Final = _tree()
_rows: list[Row | None] = [None] * 256


def _padding() -> frozenset[int]:
    """The states in which a text may end: up to seven bits of one behind the last symbol (RFC 7541, 5.2)."""
    states = [0]
    for _ in range(7):
        states.append(_NODES[states[-1]][1])
    return frozenset(states)


_ENDS: Final = _padding()


def _make_row(state: int) -> Row:
    states, texts = bytearray(256), []
    for byte in range(256):
        at, text = state, b""
        has_eos = False
        for shift in range(7, -1, -1):
            at = _NODES[at][byte >> shift & 1]
            if at < 0:
                has_eos = has_eos or at == ~EOS
                text += b"" if has_eos else bytes((~at,))
                at = 0
        states[byte] = at
        texts.append(None if has_eos else text)
    row = _rows[state] = (bytes(states), texts)
    return row


def decode(data: bytes) -> bytes:
    """Raises ValueError for bits that are no text: EOS in it, or a wrong padding."""
    state = 0
    found = []
    for byte in data:
        states, texts = _rows[state] or _make_row(state)
        found.append(texts[byte])
        state = states[byte]
    if state not in _ENDS:
        raise ValueError("a text in Huffman code that does not end as it must")
    try:
        return b"".join(found)  # type: ignore[arg-type]  # None is what it fails on
    except TypeError:
        raise ValueError("EOS in a text in Huffman code") from None


def encode(text: bytes) -> bytes:
    """Padded with ones to whole bytes. Costs the square of the text's length: made for field lines."""
    bits = length = 0
    for symbol in text:
        size = _LENGTHS[symbol]
        bits = bits << size | _CODES[symbol]
        length += size
    padding = -length % 8
    return (bits << padding | (1 << padding) - 1).to_bytes((length + padding) // 8, "big")
