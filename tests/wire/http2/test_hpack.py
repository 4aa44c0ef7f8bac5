import random

import hpack
import pytest

from lbproxy.wire.http2.errors import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFailed
from lbproxy.wire.http2.hpack import REMEMBERED, Decoder

# RFC 7541, appendix C: blocks that follow each other on one connection.
PLAIN_REQUESTS = """
828684410f7777772e6578616d706c652e636f6d
828684be58086e6f2d6361636865
828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565
"""
CODED_REQUESTS = """
828684418cf1e3c2e5f23a6ba0ab90f4ff
828684be5886a8eb10649cbf
828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf
"""
REQUESTS = [
    "GET http / www.example.com",
    "GET http / www.example.com cache-control=no-cache",
    "GET https /index.html www.example.com custom-key=custom-value",
]
PLAIN_ANSWERS = """
4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d
4803333037c1c0bf
88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31
"""
CODED_ANSWERS = """
488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3
4883640effc1c0bf
88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007
"""
DATES = b"Mon, 21 Oct 2013 20:13:21 GMT", b"Mon, 21 Oct 2013 20:13:22 GMT"
COMMON = [(b"cache-control", b"private"), (b"date", DATES[0]), (b"location", b"https://www.example.com")]
ANSWERS = [
    [(b":status", b"302"), *COMMON],
    [(b":status", b"307"), *COMMON],
    [
        (b":status", b"200"),
        COMMON[0],
        (b"date", DATES[1]),
        COMMON[2],
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]


def blocks(text: str) -> list[bytes]:
    return [bytes.fromhex(line) for line in text.split()]


@pytest.mark.parametrize("text", [PLAIN_REQUESTS, CODED_REQUESTS], ids=["plain", "huffman"])
def test_requests_of_the_specification(text: str) -> None:
    decoder = Decoder()
    for block, due in zip(blocks(text), REQUESTS, strict=True):
        method, scheme, path, authority, *more = due.encode().split()
        fields = [(b":method", method), (b":scheme", scheme), (b":path", path), (b":authority", authority)]
        fields += [(name, value) for name, _, value in (one.partition(b"=") for one in more)]
        assert list(decoder.decode(block)) == fields


@pytest.mark.parametrize("text", [PLAIN_ANSWERS, CODED_ANSWERS], ids=["plain", "huffman"])
def test_answers_of_the_specification_with_a_table_that_overflows(text: str) -> None:
    decoder = Decoder(max_table_bytes=256)
    assert [list(decoder.decode(block)) for block in blocks(text)] == ANSWERS


def test_a_block_that_repeats_gives_the_same_fields_until_the_table_changes() -> None:
    decoder = Decoder()
    entry = b"\x40\x01a\x01b"
    decoder.decode(entry)
    once = decoder.decode(b"\x82\xbe")
    assert once == ((b":method", b"GET"), (b"a", b"b"))
    assert decoder.decode(b"\x82\xbe") is once
    decoder.decode(b"\x40\x01c\x01d")
    assert decoder.decode(b"\x82\xbe") == ((b":method", b"GET"), (b"c", b"d"))
    assert decoder.decode(b"\x82\xbf") == once
    decoder.decode(b"\x20\x3f\xe1\x1f\x82")
    with pytest.raises(ConnectionFailed):
        decoder.decode(b"\x82\xbe")


def test_the_memory_of_blocks_is_bounded() -> None:
    decoder = Decoder()
    for number in range(1000):
        decoder.decode(b"\x00\x01a\x04%04d" % number)
    assert len(decoder._known) <= REMEMBERED
    decoder.forget()
    assert decoder._known == {}


@pytest.mark.parametrize(
    "block",
    ["80", "be", "ff8080808001", "ff80", "82203f", "3fe21f", "20202082", "7f", "000361", "00ff", "0081ff", "408100"],
)
def test_nonsense_is_a_compression_error(block: str) -> None:
    with pytest.raises(ConnectionFailed) as failed:
        Decoder().decode(bytes.fromhex(block))
    assert failed.value.code == COMPRESSION_ERROR


def test_a_list_over_the_limit_is_read_to_its_end_and_far_over_it_is_not() -> None:
    decoder = Decoder(max_list_bytes=1000)
    large = b"\x40\x01b\x7f\xa1\x06" + b"x" * 928
    assert decoder.decode(large) == ((b"b", b"x" * 928),)
    assert not decoder.too_large
    assert decoder.decode(b"\xbe\x82\x40\x01c\x01d") == ((b"b", b"x" * 928),)
    assert decoder.too_large
    assert decoder.decode(b"\xbe") == ((b"c", b"d"),)
    assert not decoder.too_large
    with pytest.raises(ConnectionFailed) as failed:
        decoder.decode(b"\xbf" * 5)
    assert failed.value.code == ENHANCE_YOUR_CALM


def test_whatever_the_oracle_writes_is_read() -> None:
    draw = random.Random(1)
    names = [b":path", b"cookie", b"date", b"accept", b"x-one", b"x-two", b"x-" + b"l" * 200]
    for _ in range(60):
        writer, decoder = hpack.Encoder(), Decoder(max_list_bytes=1 << 20)
        for _ in range(25):
            if draw.random() < 0.15:
                writer.header_table_size = draw.choice([0, 60, 200, 1000, 4096])
            fields = [
                (draw.choice(names), draw.randbytes(draw.choice([0, 1, 3, 40, 300]))) for _ in range(draw.randint(0, 6))
            ]
            sent = [hpack.NeverIndexedHeaderTuple(*pair) if draw.random() < 0.2 else pair for pair in fields]
            assert list(decoder.decode(writer.encode(sent, huffman=draw.random() < 0.7))) == fields
