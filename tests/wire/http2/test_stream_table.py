import pytest

from lbproxy.wire.http2 import frames
from lbproxy.wire.http2.errors import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, STREAM_CLOSED, ConnectionFailed, StreamFailed
from lbproxy.wire.http2.peer_settings import LocalSettings
from lbproxy.wire.http2.stream_table import StreamTable


def table() -> StreamTable:
    made = StreamTable(LocalSettings(), lambda stream_id: None)
    made.ids.open(1)
    made.ids.open(3)
    made.add(3, 65535)
    return made


def test_data_that_is_used_opens_both_windows_again_in_batches() -> None:
    streams = table()
    stream = streams.open[3]
    for _ in range(20):
        streams.received(16384)
        stream.receive_bytes -= 16384
        stream.held_bytes += 16384
        streams.credit(stream, 16384)
    opened = frames.window_update(3, 32768)
    assert streams.output.take() == opened * 7 + frames.window_update(0, 262144) + opened * 3
    assert (stream.receive_bytes, streams.receive_bytes) == (65535, (1 << 20) - 65536)
    with pytest.raises(ConnectionFailed) as failed:
        streams.received(1 << 20)
    assert failed.value.code == FLOW_CONTROL_ERROR


def test_what_a_stream_still_held_when_it_went_counts_no_longer() -> None:
    streams = table()
    stream = streams.open[3]
    streams.received(300_000)
    stream.held_bytes = 300_000
    streams.reset(3, 8)
    assert streams.output.take() == frames.rst_stream(3, 8) + frames.window_update(0, 300_000)
    assert (streams.open, streams.receive_bytes) == ({}, 1 << 20)


def test_late_and_early_frames_are_judged() -> None:
    streams = table()
    streams.judge(frames.WINDOW_UPDATE, 1)
    streams.judge(frames.RST_STREAM, 1)
    for kind, stream_id, code in ((0, 1, STREAM_CLOSED), (1, 1, STREAM_CLOSED), (0, 5, PROTOCOL_ERROR), (1, 2, 1)):
        with pytest.raises(ConnectionFailed) as failed:
            streams.judge(kind, stream_id)
        assert failed.value.code == code
    streams.end_remote(streams.open[3])
    with pytest.raises(StreamFailed) as broken:
        streams.judge(frames.DATA, 3)
    assert broken.value.code == STREAM_CLOSED
    streams.reset(3, STREAM_CLOSED)
    for kind in (0, 1, 3, 8):
        streams.judge(kind, 3)
