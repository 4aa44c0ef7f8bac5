from lbproxy.wire.http2 import frames
from lbproxy.wire.http2.stream import RECEIVED, State, Stream, Verdict


def test_every_state_has_a_verdict_on_every_frame_of_a_stream() -> None:
    kinds = {frames.DATA, frames.HEADERS, frames.RST_STREAM, frames.WINDOW_UPDATE}
    assert {state: set(verdicts) for state, verdicts in RECEIVED.items()} == dict.fromkeys(State, kinds)
    assert set(RECEIVED[State.IDLE].values()) == {Verdict.TAKEN, Verdict.NEVER}


def test_a_stream_says_where_it_stands() -> None:
    stream = Stream(3, 10, 20)
    assert repr(stream) == "<Stream 3, OPEN, send 10, receive 20, 0 bytes queued>"
    stream.local_ended = True
    assert stream.state is State.HALF_CLOSED_LOCAL
    stream.remote_ended = True
    assert stream.state is State.CLOSED
    stream.local_ended = False
    assert stream.state is State.HALF_CLOSED_REMOTE
