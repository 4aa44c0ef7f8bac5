import pytest

from lbproxy.wire.http2 import frames
from lbproxy.wire.http2.errors import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, ConnectionFailed
from lbproxy.wire.http2.peer_settings import LocalSettings, PeerSettings


def payload(*pairs: tuple[int, int]) -> bytes:
    return frames.settings(pairs)[frames.HEADER_BYTES :]


def told(frame: bytes) -> dict[int, int]:
    return dict(frames.read_settings(frame[frames.HEADER_BYTES :]))


def test_what_we_tell_a_client_and_a_backend() -> None:
    settings = LocalSettings(header_list_bytes=8192)
    assert told(settings.first_frame(client=False)) == {3: 100, 4: 65535, 6: 8192, 8: 1}
    assert told(settings.first_frame(client=True)) == {2: 0, 4: 65535, 6: 8192}
    larger = LocalSettings(max_frame_bytes=65536, header_table_bytes=0)
    assert told(larger.first_frame(client=True)) == {2: 0, 4: 65535, 6: 16384, 5: 65536, 1: 0}


def test_what_the_peer_says_counts_from_then_on() -> None:
    peer = PeerSettings()
    peer.apply(payload((1, 0), (2, 1), (3, 7), (4, 0), (5, 16385), (6, 99), (8, 1), (99, 5), (3, 8)), from_client=True)
    facts = (peer.header_table_bytes, peer.max_streams, peer.window_bytes, peer.max_frame_bytes, peer.header_list_bytes)
    assert facts == (0, 8, 0, 16385, 99)
    assert peer.connect_protocol


@pytest.mark.parametrize(
    ("pair", "code"),
    [
        ((2, 2), PROTOCOL_ERROR),
        ((4, 2**31), FLOW_CONTROL_ERROR),
        ((5, 16383), PROTOCOL_ERROR),
        ((5, 2**24), PROTOCOL_ERROR),
        ((8, 2), PROTOCOL_ERROR),
        ((8, 0), PROTOCOL_ERROR),
    ],
)
def test_values_out_of_range_end_the_connection(pair: tuple[int, int], code: int) -> None:
    peer = PeerSettings()
    peer.connect_protocol = True
    with pytest.raises(ConnectionFailed) as failed:
        peer.apply(payload(pair), from_client=True)
    assert failed.value.code == code


def test_a_backend_does_not_ask_for_push() -> None:
    with pytest.raises(ConnectionFailed):
        PeerSettings().apply(payload((2, 1)), from_client=False)
