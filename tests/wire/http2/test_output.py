import h2.settings
import pytest
from support.http2_pair import Pair, block

from lbproxy.wire.http2.output import TAKEN_AT_ONCE_BYTES

OK = block((b":status", b"200"))


def ended(pair: Pair) -> list[int]:
    return [event.stream_id for event in pair.events if type(event).__name__ == "StreamEnded"]


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 65535])
def test_a_body_arrives_whole_and_its_end_is_on_its_last_frame(size: int) -> None:
    pair = Pair()
    stream_id = pair.ask()
    pair.ours.send_head(stream_id, OK)
    pair.ours.send_data(stream_id, b"x" * size, end=True)
    raw = pair.ours.take()
    pair.events += pair.theirs.receive_data(raw)
    assert pair.received(stream_id) == b"x" * size
    assert ended(pair) == [stream_id]
    assert raw.count(b"\0\x01\0\0\0\x01") <= 1
    assert pair.ours.streams == {}


def test_a_window_that_is_used_up_holds_back_its_own_stream_only_and_trailers_stay_behind() -> None:
    pair = Pair()
    first, second = pair.ask(), pair.ask()
    for stream_id in (first, second):
        pair.ours.send_head(stream_id, OK)
    pair.ours.send_data(first, b"a" * 60_000)
    pair.pump()
    pair.theirs.increment_flow_control_window(100_000)  # of the connection
    pair.pump()
    pair.ours.send_data(first, b"a" * 40_000)
    pair.ours.send_head(first, block((b"x-sum", b"7")), end=True)
    pair.ours.send_data(second, b"b" * 50_000, end=True)
    pair.pump()
    assert (len(pair.received(first)), len(pair.received(second))) == (65_535, 50_000)
    assert (pair.ours.pending(first), pair.ours.pending(second), ended(pair)) == (34_465, 0, [second])
    pair.theirs.increment_flow_control_window(40_000, first)
    fresh = pair.pump()
    assert [type(event).__name__ for event in fresh][-2:] == ["TrailersReceived", "StreamEnded"]
    assert pair.received(first) == b"a" * 100_000
    assert pair.owner.of("writable")


def test_streams_that_wait_go_round_a_frame_each() -> None:
    pair = Pair()
    pair.theirs.increment_flow_control_window(1 << 20)
    pair.theirs.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    pair.pump()
    ids = [pair.ask() for _ in range(3)]
    for stream_id in ids:
        pair.ours.send_head(stream_id, OK)
        pair.ours.send_data(stream_id, bytes(200_000), end=True)
    order = []
    while raw := pair.ours.take():
        assert len(raw) < TAKEN_AT_ONCE_BYTES + 17_000
        order += [event.stream_id for event in pair.theirs.receive_data(raw) if type(event).__name__ == "DataReceived"]
    assert order[:9] == ids * 3
    assert sorted(order[-6:]) == sorted(ids * 2)


def test_a_window_may_fall_below_zero_and_recovers() -> None:
    pair = Pair()
    stream_id = pair.ask()
    pair.ours.send_head(stream_id, OK)
    pair.ours.send_data(stream_id, bytes(60_000))
    pair.pump()
    pair.theirs.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    pair.pump()
    assert pair.ours.streams[stream_id].send_bytes == -59_000
    pair.ours.send_data(stream_id, b"y" * 2000, end=True)
    pair.theirs.increment_flow_control_window(59_500, stream_id)
    pair.pump()
    assert len(pair.received(stream_id)) == 60_500
    pair.theirs.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 5000})
    pair.pump()
    assert (len(pair.received(stream_id)), ended(pair)) == (62_000, [stream_id])


def test_a_reset_drops_what_waits() -> None:
    pair = Pair()
    stream_id = pair.ask()
    pair.ours.send_head(stream_id, OK)
    pair.ours.send_data(stream_id, bytes(100_000))
    pair.pump()
    assert pair.ours.output.unsent_bytes == pair.ours.output.queued_bytes == 34_465
    pair.ours.reset(stream_id, 8)
    assert (pair.ours.output.unsent_bytes, pair.ours.output.is_wanted) == (13, True)
    assert type(pair.pump()[-1]).__name__ == "StreamReset"
    assert not pair.ours.output.is_wanted


def test_a_peer_without_a_table_is_told_once_that_none_is_used() -> None:
    pair = Pair()
    pair.theirs.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0})
    for _ in range(2):
        stream_id = pair.ask()
        pair.ours.send_head(stream_id, OK, end=True)
        pair.pump()
    assert ended(pair) == [1, 3]


def test_a_closed_connection_keeps_nothing() -> None:
    pair = Pair()
    stream_id = pair.ask()
    pair.ours.send_head(stream_id, OK)
    pair.ours.send_data(stream_id, bytes(100_000))
    pair.ours.output.abandon()
    assert (pair.ours.output.unsent_bytes, pair.ours.take()) == (0, b"")
