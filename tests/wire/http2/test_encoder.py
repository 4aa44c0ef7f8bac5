import hpack
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.http2.encoder import NO_TABLE, EncodedLines, field, fresh_field, integer

FIELDS = st.tuples(st.sampled_from([b":status", b"cookie", b"date", b"x-a"]) | st.binary(min_size=1), st.binary())


def decoded(block: bytes) -> list[tuple[bytes, bytes]]:
    return [tuple(pair) for pair in hpack.Decoder().decode(block, raw=True)]


@given(fields=st.lists(FIELDS, max_size=8))
def test_the_oracle_reads_what_was_written(fields: list[tuple[bytes, bytes]]) -> None:
    assert decoded(b"".join(field(*pair) for pair in fields)) == fields
    assert decoded(b"".join(fresh_field(*pair) for pair in fields)) == fields


def test_secrets_are_never_indexed_and_nothing_enters_a_table() -> None:
    decoder = hpack.Decoder()
    for name in (b"cookie", b"set-cookie", b"authorization", b"x-request-id"):
        (pair,) = decoder.decode(NO_TABLE + field(name, b"secret"), raw=True)
        assert pair.indexable == (name == b"x-request-id")
    assert len(decoder.header_table.dynamic_entries) == 0
    assert field(b":status", b"200") == b"\x88"


def test_integers_are_those_of_the_specification() -> None:
    assert integer(10, 0, 31) == b"\x0a"
    assert integer(1337, 0, 31) == b"\x1f\x9a\x0a"
    assert integer(42, 0, 255) == b"\x2a"


def test_lines_are_encoded_once_and_the_memory_is_bounded() -> None:
    encoded = EncodedLines()
    assert decoded(encoded[b"Content-Type: text/plain"]) == [(b"content-type", b"text/plain")]
    assert decoded(encoded[b"X-Empty:"]) == [(b"x-empty", b"")]
    assert encoded[b"X-Empty:"] is encoded[b"X-Empty:"]
    for number in range(3 * EncodedLines.MOST_LINES):
        encoded[b"X: %d" % number]
    assert len(encoded) <= EncodedLines.MOST_LINES
    long = b"A: " + b"b" * 300
    assert decoded(encoded[long]) == [(b"a", b"b" * 300)]
    assert long not in encoded
