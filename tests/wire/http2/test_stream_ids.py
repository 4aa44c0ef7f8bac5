from lbproxy.wire.http2.frames import LARGEST_ID
from lbproxy.wire.http2.stream import State
from lbproxy.wire.http2.stream_ids import REMEMBERED_GAPS, REMEMBERED_RESETS, StreamIds


def test_an_id_tells_whether_its_stream_was_ever_open() -> None:
    ids = StreamIds()
    assert ids.next() == 1
    for stream_id in (1, 3, 9):
        assert ids.is_new(stream_id)
        ids.open(stream_id)
    assert not any(map(ids.is_new, (9, 5, 10, 0)))
    assert [ids.state_of(stream_id).name for stream_id in (1, 3, 5, 7, 9, 11, 4)] == [
        *("CLOSED", "CLOSED", "IDLE", "IDLE", "CLOSED", "IDLE", "IDLE")
    ]
    assert ids.next() == 11


def test_resets_are_remembered_for_a_while() -> None:
    ids = StreamIds()
    ids.open(1)
    for number in range(REMEMBERED_RESETS + 1):
        ids.note_reset(2 * number + 1)
    assert ids.state_of(3) is State.RESET
    assert ids.state_of(1) is State.CLOSED


def test_gaps_are_bounded_and_ids_end() -> None:
    ids = StreamIds()
    for number in range(1, 100):
        ids.open(10 * number + 1)
    assert len(ids._gaps) == REMEMBERED_GAPS
    ids.open(LARGEST_ID)
    assert ids.next() is None
