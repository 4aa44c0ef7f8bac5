import pytest
from support.http2_pair import GET, POST, Pair, Recorder, block

from lbproxy.wire.http2 import frames
from lbproxy.wire.http2.connection import Http2Connection
from lbproxy.wire.http2.errors import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFailed,
    NoStreams,
)
from lbproxy.wire.http2.flood import FEW_HEADS, HEADS_AT_ONCE
from lbproxy.wire.http2.frames import frame, headers, rst_stream
from lbproxy.wire.http2.peer_settings import LocalSettings

HELLO = frames.PREFACE + frames.settings([])
OK = block((b":status", b"200"))
ASK, SEND = block(*GET), block(*POST)


def server(settings: LocalSettings | None = None) -> tuple[Http2Connection, Recorder]:
    owner = Recorder()
    connection = Http2Connection(owner, settings or LocalSettings())
    connection.feed(HELLO, 0.0)
    connection.take()
    owner.told.clear()
    return connection, owner


def opened(connection: Http2Connection, stream_id: int, raw: bytes = SEND) -> None:
    connection.feed(headers(stream_id, raw, 16384, end=raw is ASK), 0.0)


def test_a_request_and_its_answer_at_every_cut() -> None:
    raw = (
        HELLO
        + headers(1, SEND, 20, end=False)
        + frame(0, 8, 1, b"\x02body\0\0")
        + headers(1, block((b"a", b"b")), 9, end=True)
    )
    due = [
        ("settings",),
        ("head", 1, tuple(POST), False),
        ("data", 1, b"body", 7, False),
        ("trailers", 1, ((b"a", b"b"),)),
    ]
    for cut in range(len(raw) + 1):
        owner = Recorder()
        connection = Http2Connection(owner, LocalSettings())
        connection.feed(raw[:cut], 0.0)
        connection.feed(raw[cut:], 0.0)
        assert owner.told == due
    owner = Recorder()
    connection = Http2Connection(owner, LocalSettings())
    for at in range(len(raw)):
        connection.feed(raw[at : at + 1], 0.0)
    assert owner.told == due


def test_a_backend_answers_with_interim_heads_data_and_trailers() -> None:
    pair = Pair(client=True)
    stream_id = pair.ours.open_stream()
    pair.ours.send_head(stream_id, SEND)
    pair.ours.send_data(stream_id, b"body", end=True)
    pair.pump()
    for fields, end in (([(b":status", b"103")], False), ([(b":status", b"200")], False)):
        pair.theirs.send_headers(stream_id, fields, end_stream=end)
    pair.theirs.send_data(stream_id, b"hello")
    pair.theirs.send_headers(stream_id, [(b"grpc-status", b"0")], end_stream=True)
    pair.pump()
    assert pair.owner.told == [
        ("head", 1, ((b":status", b"103"),), False),
        ("head", 1, ((b":status", b"200"),), False),
        ("data", 1, b"hello", 5, False),
        ("trailers", 1, ((b"grpc-status", b"0"),)),
    ]
    assert pair.ours.streams == {}


CONNECTION_ERRORS = {
    "DATA on stream 0": (frame(0, 0, 0, b"a"), PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(0, 0, 5, b"a"), PROTOCOL_ERROR),
    "DATA with too much padding": (frame(0, 8, 1, b"\x01"), PROTOCOL_ERROR),
    "HEADERS on stream 0": (headers(0, ASK, 16384, end=True), PROTOCOL_ERROR),
    "HEADERS on an even stream": (headers(2, ASK, 16384, end=True), PROTOCOL_ERROR),
    "HEADERS on a stream that was left out": (
        headers(5, ASK, 99, end=True) + headers(3, ASK, 99, end=True),
        PROTOCOL_ERROR,
    ),
    "HEADERS on a closed stream": (frames.rst_stream(1, 8) + headers(1, ASK, 16384, end=True), STREAM_CLOSED),
    "a frame inside a block": (frame(1, 0, 3, ASK) + frames.ping(bytes(8), ack=False), PROTOCOL_ERROR),
    "an unknown frame inside a block": (frame(1, 0, 3, ASK) + frame(99, 0, 3), PROTOCOL_ERROR),
    "CONTINUATION of another stream": (frame(1, 0, 3, ASK) + frame(9, 4, 5), PROTOCOL_ERROR),
    "CONTINUATION without HEADERS": (frame(9, 4, 1), PROTOCOL_ERROR),
    "a bad block": (frame(1, 5, 3, b"\xff"), 9),
    "PRIORITY on stream 0": (frame(2, 0, 0, bytes(5)), PROTOCOL_ERROR),
    "PRIORITY of six bytes": (frame(2, 0, 7, bytes(6)), FRAME_SIZE_ERROR),
    "RST_STREAM on an idle stream": (frames.rst_stream(3, 8), PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (frames.rst_stream(0, 8), PROTOCOL_ERROR),
    "RST_STREAM of three bytes": (frame(3, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (frame(4, 0, 1), PROTOCOL_ERROR),
    "SETTINGS of five bytes": (frame(4, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "an ACK with a payload": (frame(4, 1, 0, bytes(6)), FRAME_SIZE_ERROR),
    "PUSH_PROMISE": (frame(5, 4, 1, bytes(4)), PROTOCOL_ERROR),
    "PING on a stream": (frame(6, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "PING of seven bytes": (frame(6, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame(7, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "GOAWAY of seven bytes": (frame(7, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 0": (frames.window_update(0, 0), PROTOCOL_ERROR),
    "WINDOW_UPDATE of three bytes": (frame(8, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE on an idle stream": (frames.window_update(3, 1), PROTOCOL_ERROR),
    "a window over its maximum": (frames.window_update(0, 2**31 - 1), FLOW_CONTROL_ERROR),
    "a window made too large by SETTINGS": (
        frames.window_update(1, 2**31 - 65536) + frames.settings([(4, 65536)]),
        FLOW_CONTROL_ERROR,
    ),
    "a frame over MAX_FRAME_SIZE": (frame(0, 0, 1, bytes(16385)), FRAME_SIZE_ERROR),
    "an endless block": (frame(1, 0, 3, ASK) + frame(9, 0, 3) * 100, ENHANCE_YOUR_CALM),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_an_error_of_the_connection_ends_it_with_goaway(name: str) -> None:
    raw, code = CONNECTION_ERRORS[name]
    connection, owner = server()
    opened(connection, 1)
    connection.take()
    with pytest.raises(ConnectionFailed) as failed:
        connection.feed(raw, 0.0)
    assert failed.value.code == code
    sent = connection.take()
    goaway = sent[sent.index(b"\x07\0\0\0\0\0\0\0\0") + 6 :]
    assert goaway[4:8] == code.to_bytes(4, "big")
    assert goaway[8:].decode() == failed.value.reason
    told = len(owner.told)
    connection.feed(headers(9, ASK, 16384, end=True), 0.0)
    assert len(owner.told) == told


STREAM_ERRORS = {
    "DATA behind the end": (frame(0, 1, 1, b"a") + frame(0, 0, 1, b"a"), STREAM_CLOSED),
    "HEADERS behind the end": (frame(0, 1, 1, b"a") + headers(1, ASK, 16384, end=True), STREAM_CLOSED),
    "trailers without an end": (headers(1, block((b"a", b"b")), 16384, end=False), PROTOCOL_ERROR),
    "WINDOW_UPDATE of 0": (frames.window_update(1, 0), PROTOCOL_ERROR),
    "a window over its maximum": (frames.window_update(1, 2**31 - 1), FLOW_CONTROL_ERROR),
    "PRIORITY of six bytes": (frame(2, 0, 1, bytes(6)), FRAME_SIZE_ERROR),
    "PRIORITY on itself": (frame(2, 0, 1, b"\0\0\0\x01\x10"), PROTOCOL_ERROR),
    "trailers on itself": (frame(1, 0x25, 1, b"\0\0\0\x01\x10"), PROTOCOL_ERROR),
    "more than the window": (frame(0, 0, 1, bytes(16384)) * 4, FLOW_CONTROL_ERROR),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_an_error_of_a_stream_resets_it_and_spares_the_others(name: str) -> None:
    raw, code = STREAM_ERRORS[name]
    connection, owner = server()
    opened(connection, 1)
    connection.feed(raw, 0.0)
    ((_, failure),) = owner.of("failed")
    assert (failure.stream_id, failure.code) == (1, code)
    assert frames.rst_stream(1, code) in connection.take()
    connection.feed(frame(0, 0, 1, b"late") + headers(1, ASK, 16384, end=True) + frames.window_update(1, 5), 0.0)
    opened(connection, 3, ASK)
    assert owner.told[-1] == ("head", 3, tuple(GET), True)


def test_frames_that_mean_nothing_are_read_over() -> None:
    connection, owner = server()
    opened(connection, 1, ASK)
    connection.send_head(1, OK, end=True)
    connection.take()
    priority = frame(2, 0, 9, b"\0\0\0\x03\x10")
    connection.feed(frame(99, 255, 7, b"what") + priority + frame(16, 0, 0, bytes(4)) + frames.window_update(1, 1), 0.0)
    connection.feed(frames.rst_stream(1, 8) + frames.SETTINGS_ACK, 0.0)
    assert (len(owner.told), connection.take()) == (1, b"")


def test_data_must_be_as_long_as_the_owner_expects() -> None:
    for sent in (b"abcd", b"ab"):
        connection, owner = server()
        opened(connection, 1)
        connection.expect(1, 3)
        connection.feed(frame(0, 1, 1, sent), 0.0)
        assert [call[0] for call in owner.told] == ["head", "failed"]
    connection, owner = server()
    opened(connection, 1)
    connection.expect(1, 3)
    connection.feed(frame(0, 0, 1, b"abc") + headers(1, block((b"a", b"b")), 99, end=True), 0.0)
    assert [call[0] for call in owner.told] == ["head", "data", "trailers"]


def test_too_many_streams_and_streams_behind_goaway_are_refused() -> None:
    connection, owner = server(LocalSettings(max_streams=2))
    for stream_id in (1, 3, 5):
        opened(connection, stream_id)
    assert connection.take() == frames.rst_stream(5, REFUSED_STREAM)
    assert (connection.last_id, len(owner.told)) == (3, 3)
    connection.reset(1, 8)
    connection.goaway(frames.LARGEST_ID, 0)
    opened(connection, 7)
    connection.goaway(connection.last_id, 0)
    connection.reset(3, 8)
    connection.take()
    opened(connection, 9)
    assert connection.take() == frames.rst_stream(9, REFUSED_STREAM)
    assert list(connection.streams) == [7]


def test_a_large_head_is_told_as_such_and_the_table_stays_in_step() -> None:
    connection, owner = server(LocalSettings(header_list_bytes=300))
    large = b"\x40\x01b\x7f\xa9\x01" + b"x" * 296
    opened(connection, 1, SEND + large)
    opened(connection, 3, SEND + b"\xbe\x40\x01a\x01b")
    opened(connection, 5, ASK + b"\xbe")
    names = [(call[0], call[1]) for call in owner.told]
    assert names == [("large_head", 1), ("large_head", 3), ("head", 5)]
    assert owner.told[2][2][-1] == (b"a", b"b")


def test_pings_settings_and_goaway() -> None:
    connection, owner = server()
    connection.feed(frames.ping(b"12345678", ack=False) + frames.settings([(5, 20000)]), 0.0)
    assert connection.take() == frames.ping(b"12345678", ack=True) + frames.SETTINGS_ACK
    connection.ping(b"abcdefgh")
    assert connection.take() == frames.ping(b"abcdefgh", ack=False)
    connection.feed(frames.ping(b"abcdefgh", ack=True) + frames.goaway(0, 0, b"bye"), 0.0)
    assert owner.told == [("settings",), ("ping_ack", b"abcdefgh"), ("goaway", 0, 0, b"bye")]


def test_a_backend_that_leaves_says_which_streams_it_never_saw() -> None:
    pair = Pair(client=True)
    first, second = pair.ours.open_stream(), pair.ours.open_stream()
    for stream_id in (first, second):
        pair.ours.send_head(stream_id, ASK, end=True)
    pair.ours.take()
    pair.ours.feed(frames.goaway(first, 0), 0.0)
    assert pair.owner.told == [("goaway", 1, 0, b""), ("reset", second, REFUSED_STREAM)]
    assert list(pair.ours.streams) == [first]
    with pytest.raises(NoStreams):
        pair.ours.open_stream()


def test_a_backend_says_how_many_streams_it_takes() -> None:
    pair = Pair(client=True)
    pair.ours.feed(frames.settings([(3, 1)]), 0.0)
    stream_id = pair.ours.open_stream()
    with pytest.raises(NoStreams):
        pair.ours.open_stream()
    pair.ours.feed(frames.rst_stream(stream_id, 8), 0.0)
    assert pair.owner.told[-1] == ("reset", 1, 8)
    assert pair.ours.open_stream() == 3


CLIENT_ERRORS = {
    "a stream of the server's": headers(2, OK, 99, end=False),
    "HEADERS on an idle stream": headers(3, OK, 99, end=False),
    "push": frame(5, 4, 1, bytes(4) + OK),
}


@pytest.mark.parametrize("name", CLIENT_ERRORS)
def test_a_backend_that_breaks_the_rules(name: str) -> None:
    pair = Pair(client=True)
    pair.ours.open_stream()
    with pytest.raises(ConnectionFailed):
        pair.ours.feed(CLIENT_ERRORS[name], 0.0)


def test_a_backend_that_breaks_the_rules_of_a_stream() -> None:
    for raw in (frame(0, 0, 1, b"early"), headers(1, block((b":status", b"103")), 99, end=True)):
        pair = Pair(client=True)
        pair.ours.open_stream()
        pair.ours.feed(raw, 0.0)
        assert pair.owner.told[-1][0] == "failed"


@pytest.mark.parametrize(
    "raw", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSX", frames.PREFACE + frames.ping(bytes(8), ack=False)]
)
def test_a_client_that_does_not_begin_as_it_must(raw: bytes) -> None:
    connection = Http2Connection(Recorder(), LocalSettings())
    with pytest.raises(ConnectionFailed) as failed:
        connection.feed(raw, 0.0)
    assert failed.value.code == PROTOCOL_ERROR


def test_a_connection_at_rest_goes_on_as_before() -> None:
    connection, owner = server()
    opened(connection, 1, ASK)
    connection.reset(1, 8)
    connection.rest()
    assert repr(connection) == "<Http2Connection server, 0 streams, 13 bytes unsent>"
    connection.feed(frame(0, 0, 1, b"late"), 0.0)
    opened(connection, 3, ASK)
    assert [call[:2] for call in owner.told] == [("head", 1), ("head", 3)]


def test_a_turn_reads_so_many_heads_and_the_next_ones_in_their_order() -> None:
    connection, owner = server()
    ids, ids_after = range(1, 81, 2), range(81, 101, 2)
    connection.feed(b"".join(headers(number, ASK, 16384, end=True) for number in ids), 0.0)
    turns = 1
    while connection.is_paused:
        assert len(owner.told) == HEADS_AT_ONCE * turns
        connection.feed(b"", 0.0)
        turns += 1
    assert [call[1] for call in owner.told] == [*ids]
    assert turns == 3
    assert not connection.kept
    owner.told.clear()
    connection.feed(rst_stream(1, 8) + b"".join(headers(number, ASK, 16384, end=True) for number in ids_after), 0.5)
    assert len(owner.of("head")) == FEW_HEADS


def test_a_large_block_counts_as_many_heads() -> None:
    connection, owner = server()
    large = ASK + block(*((b"name-%d" % number, bytes(200).replace(b"\0", b"~")) for number in range(40)))
    connection.feed(headers(1, large, 16384, end=True) + headers(3, large, 16384, end=True), 0.0)
    connection.feed(headers(5, ASK, 16384, end=True), 0.0)
    assert [call[1] for call in owner.told] == [1, 3, 5]
    assert len(large) > 1024 * HEADS_AT_ONCE / 2
