import random

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman

from lbproxy.wire.http2.huffman import _CODES, _LENGTHS, decode, encode

oracle = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def test_the_code_is_that_of_the_specification() -> None:
    assert (_CODES, list(_LENGTHS)) == (list(REQUEST_CODES), list(REQUEST_CODES_LENGTH))


def test_every_text_is_coded_as_the_oracle_codes_it() -> None:
    draw = random.Random(7541)
    texts = [bytes([symbol]) for symbol in range(256)] + [draw.randbytes(draw.randint(0, 40)) for _ in range(2000)]
    for text in texts:
        code = encode(text)
        assert code == oracle.encode(text)
        assert decode(code) == text


def test_any_bits_are_read_as_the_oracle_reads_them() -> None:
    draw = random.Random(7)
    for _ in range(5000):
        code = draw.randbytes(draw.randint(1, 12))
        try:
            due = decode_huffman(code)
        except Exception:
            with pytest.raises(ValueError):
                decode(code)
        else:
            assert decode(code) == due


@pytest.mark.parametrize(
    "code", [b"\xff\xff\xff\xff", b"\xff\xff\xff\xfc", b"\x00", b"\x1f\xff", b"\xff"], ids=bytes.hex
)
def test_eos_and_a_wrong_padding_are_refused(code: bytes) -> None:
    with pytest.raises(ValueError):
        decode(code)
