"""One stream: its state, its two windows, what waits to be sent on it (RFC 9113, 5.1 and 5.2).

Holds facts. connection.py changes what comes in, output.py what goes out.
"""

from collections import deque
from enum import IntEnum
from typing import Final, TypeAlias

from lbproxy.wire.http2 import frames


class State(IntEnum):
    """The state of a stream, as its id and the memory of the connection tell it."""

    IDLE = 0
    OPEN = 1
    HALF_CLOSED_LOCAL = 2  # our side has ended
    HALF_CLOSED_REMOTE = 3  # the peer's side has ended
    RESET = 4  # by us, not long ago: the peer may not know it yet
    CLOSED = 5


class Verdict(IntEnum):
    """What a frame means in a state."""

    TAKEN = 0
    IGNORED = 1
    STREAM_IS_CLOSED = 2  # a stream error, STREAM_CLOSED
    CONNECTION_IS_CLOSED = 3  # a connection error, STREAM_CLOSED
    NEVER = 4  # a connection error, PROTOCOL_ERROR


_ANY = dict.fromkeys((frames.DATA, frames.HEADERS, frames.RST_STREAM, frames.WINDOW_UPDATE), Verdict.TAKEN)
# What the peer may send. PRIORITY may come in every state, and is read over.
RECEIVED: Final[dict[State, dict[int, Verdict]]] = {
    State.IDLE: {**dict.fromkeys(_ANY, Verdict.NEVER), frames.HEADERS: Verdict.TAKEN},
    State.OPEN: _ANY,
    State.HALF_CLOSED_LOCAL: _ANY,
    State.HALF_CLOSED_REMOTE: {
        **_ANY,
        frames.DATA: Verdict.STREAM_IS_CLOSED,
        frames.HEADERS: Verdict.STREAM_IS_CLOSED,
    },
    State.RESET: dict.fromkeys(_ANY, Verdict.IGNORED),
    State.CLOSED: {
        frames.DATA: Verdict.CONNECTION_IS_CLOSED,
        frames.HEADERS: Verdict.CONNECTION_IS_CLOSED,
        frames.RST_STREAM: Verdict.IGNORED,
        frames.WINDOW_UPDATE: Verdict.IGNORED,
    },
}


class Queued:
    """A header block that waits behind data."""

    __slots__ = ("block", "end")

    def __init__(self, block: bytes, end: bool) -> None:
        self.block = block
        self.end = end


Item: TypeAlias = bytes | memoryview | Queued


class Stream:
    __slots__ = (
        "awaits_turn",
        "credit_bytes",
        "ends",
        "expected_bytes",
        "got_head",
        "held_bytes",
        "id",
        "local_ended",
        "queue",
        "queued_bytes",
        "receive_bytes",
        "remote_ended",
        "send_bytes",
    )

    def __init__(self, stream_id: int, send_bytes: int, receive_bytes: int) -> None:
        self.id = stream_id
        self.send_bytes = send_bytes  # the window; below 0 after SETTINGS have made it smaller
        self.receive_bytes = receive_bytes
        self.held_bytes = 0  # received, and not used by the owner yet
        self.credit_bytes = 0  # used, and not told the peer yet
        self.expected_bytes = -1  # DATA that Content-Length still announces; -1: nothing does
        self.got_head = False  # the head that DATA or trailers may follow
        self.remote_ended = False
        self.local_ended = False  # the frame with END_STREAM is in the output
        self.queue: deque[Item] | None = None  # what waits for a window or for its turn; a Queued is never the first
        self.queued_bytes = 0
        self.ends = False  # END_STREAM goes with the last item of the queue
        self.awaits_turn = False

    @property
    def state(self) -> State:
        if self.remote_ended:
            return State.CLOSED if self.local_ended else State.HALF_CLOSED_REMOTE
        return State.HALF_CLOSED_LOCAL if self.local_ended else State.OPEN

    def __repr__(self) -> str:
        windows = f"send {self.send_bytes}, receive {self.receive_bytes}"
        return f"<Stream {self.id}, {self.state.name}, {windows}, {self.queued_bytes} bytes queued>"
