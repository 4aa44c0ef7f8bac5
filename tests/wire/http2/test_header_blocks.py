import pytest

from lbproxy.wire.http2.errors import ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR, PROTOCOL_ERROR, ConnectionFailed
from lbproxy.wire.http2.frames import END_HEADERS, HAS_PRIORITY, PADDED
from lbproxy.wire.http2.header_blocks import MOST_FRAGMENTS, ON_ITSELF, HeaderBlocks, unpadded

WHOLE = END_HEADERS | PADDED | HAS_PRIORITY


def test_padding_and_priority_are_taken_off() -> None:
    blocks = HeaderBlocks(100)
    assert blocks.begin(WHOLE, 1, b"\x02\x80\x00\x00\x03\x10block\x00\x00") == b"block"
    assert not blocks.flags & ON_ITSELF
    assert blocks.begin(WHOLE, 3, b"\x00\x80\x00\x00\x03\x10block") == b"block"
    assert blocks.flags & ON_ITSELF
    assert unpadded(b"\x00") == b""


def test_a_block_goes_on_until_its_end() -> None:
    blocks = HeaderBlocks(100)
    assert blocks.begin(0, 5, b"a") is None
    assert blocks.open_stream == 5
    assert blocks.go_on(0, b"b") is None
    assert blocks.go_on(END_HEADERS, b"c") == b"abc"
    assert blocks.open_stream == 0
    with pytest.raises(ConnectionFailed):
        blocks.go_on(END_HEADERS, b"d")


@pytest.mark.parametrize(
    ("flags", "payload", "code"),
    [
        (PADDED, b"", FRAME_SIZE_ERROR),
        (PADDED, b"\x01", PROTOCOL_ERROR),
        (PADDED, b"\x05bloc", PROTOCOL_ERROR),
        (HAS_PRIORITY, b"1234", FRAME_SIZE_ERROR),
        (PADDED | HAS_PRIORITY, b"\x0112345", FRAME_SIZE_ERROR),
    ],
)
def test_a_frame_shorter_than_it_says_is_refused(flags: int, payload: bytes, code: int) -> None:
    with pytest.raises(ConnectionFailed) as failed:
        HeaderBlocks(100).begin(flags | END_HEADERS, 1, payload)
    assert failed.value.code == code


@pytest.mark.parametrize(("fragment", "taken"), [(b"", MOST_FRAGMENTS - 1), (b"x" * 60, 16)], ids=["many", "large"])
def test_a_block_that_does_not_end_is_bounded(fragment: bytes, taken: int) -> None:
    blocks = HeaderBlocks(1000)
    blocks.begin(0, 1, b"")
    for _ in range(taken):
        blocks.go_on(0, fragment)
    with pytest.raises(ConnectionFailed) as failed:
        blocks.go_on(0, fragment)
    assert failed.value.code == ENHANCE_YOUR_CALM
