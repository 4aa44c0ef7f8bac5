import hyperframe.frame as hyper
import pytest

from lbproxy.wire.http2 import frames


def read(raw: bytes) -> hyper.Frame:
    frame, length = hyper.Frame.parse_frame_header(memoryview(raw[:9]), strict=True)
    assert len(raw) == 9 + length
    frame.parse_body(memoryview(raw[9:]))
    return frame


def test_every_frame_is_read_by_the_oracle_as_it_was_meant() -> None:
    settings = read(frames.settings([(1, 0), (4, 2**31 - 1)]))
    assert (settings.settings, settings.flags) == ({1: 0, 4: 2**31 - 1}, set())
    assert read(frames.SETTINGS_ACK).flags == {"ACK"}
    assert read(frames.rst_stream(7, 8)).error_code == 8
    update = read(frames.window_update(2**31 - 1, 2**31 - 1))
    assert (update.stream_id, update.window_increment) == (2**31 - 1, 2**31 - 1)
    ping = read(frames.ping(b"12345678", ack=True))
    assert (ping.opaque_data, ping.flags) == (b"12345678", {"ACK"})
    goaway = read(frames.goaway(5, 11, b"why"))
    assert (goaway.last_stream_id, goaway.error_code, goaway.additional_data) == (5, 11, b"why")
    headers = read(frames.headers(3, b"block", 16384, end=True))
    assert (headers.data, headers.flags) == (b"block", {"END_HEADERS", "END_STREAM"})
    assert list(frames.read_settings(b"\x00\x01\x00\x00\x10\x00\x00\x05\x00\x00\x40\x00")) == [(1, 4096), (5, 16384)]


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 40000, 3 * 16384])
def test_a_large_block_goes_on_in_continuations(size: int) -> None:
    block = bytes(number % 251 for number in range(size))
    raw = frames.headers(1, block, 16384, end=False)
    parts = []
    while raw:
        length = int.from_bytes(raw[:3], "big")
        parts.append(read(raw[: 9 + length]))
        raw = raw[9 + length :]
    assert b"".join(part.data for part in parts) == block
    assert [part.type for part in parts] == [1, *[9] * (len(parts) - 1)]
    assert ["END_HEADERS" in part.flags for part in parts] == [*[False] * (len(parts) - 1), True]
