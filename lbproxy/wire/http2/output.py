"""What one connection sends: frames in order, bodies within the windows, every stream in its turn (RFC 9113, 5.2).

Short answers are framed as they are put. What a window holds back, or what would make the output large, waits in its
stream; take() lets the streams that wait go round, a frame each.
"""

from collections import deque
from collections.abc import Callable

from lbproxy.wire.http2 import frames
from lbproxy.wire.http2.encoder import NO_TABLE
from lbproxy.wire.http2.frames import DATA, END_STREAM, HEADERS, pack_header
from lbproxy.wire.http2.stream import Queued, Stream

TAKEN_AT_ONCE_BYTES = 64 * 1024  # what take() returns at most, about; more is framed when it is wanted
SMALL_BYTES = 2048  # so much data of one stream need not wait for the turns of others

_COMPLETE_HEAD = frames.END_HEADERS


class Output:
    __slots__ = (
        "_closed",
        "_pieces",
        "_turns",
        "_writable",
        "max_frame_bytes",
        "owes_table_update",
        "put_bytes",
        "queued_bytes",
        "window_bytes",
    )

    def __init__(self, closed: Callable[[Stream], None], writable: Callable[[int], None]) -> None:
        """`closed`: both sides of a stream have ended. `writable`: data of the stream with this id has left its
        queue."""
        self._closed = closed
        self._writable = writable
        self._pieces: list[bytes | memoryview] = []
        self.put_bytes = 0  # of the pieces
        self._turns: list[Stream] = []  # an empty deque would take 600 bytes of every idle connection
        self.queued_bytes = 0  # of all streams
        self.window_bytes = frames.DEFAULT_WINDOW_BYTES  # of the connection
        self.max_frame_bytes = frames.SMALLEST_MAX_FRAME_BYTES
        self.owes_table_update = False

    @property
    def is_wanted(self) -> bool:
        """Whether take() has something to give."""
        return bool(self._pieces) or (bool(self._turns) and self.window_bytes > 0)

    @property
    def unsent_bytes(self) -> int:
        """What was put and not taken yet."""
        return self.put_bytes + self.queued_bytes

    def control(self, frame: bytes) -> None:
        """A frame that no window holds back, and that no body comes before."""
        self._pieces.append(frame)
        self.put_bytes += len(frame)

    def head(self, stream: Stream, block: bytes, end: bool) -> None:
        if stream.queue:
            stream.queue.append(Queued(block, end))
        else:
            self._put_head(stream, block, end)

    def _put_head(self, stream: Stream, block: bytes, end: bool) -> None:
        if self.owes_table_update:
            self.owes_table_update = False
            block = NO_TABLE + block
        size = len(block)
        if size <= self.max_frame_bytes:
            # Hot: frames.headers() without the call.
            flags = _COMPLETE_HEAD | END_STREAM if end else _COMPLETE_HEAD
            self._pieces.append(pack_header(size << 8 | HEADERS, flags, stream.id) + block)
        else:
            self._pieces.append(frames.headers(stream.id, block, self.max_frame_bytes, end=end))
        self.put_bytes += size
        if end:
            self._end(stream)

    def _put_data(self, stream: Stream, data: bytes | memoryview, size: int, end: bool) -> None:
        self._pieces.append(pack_header(size << 8 | DATA, END_STREAM if end else 0, stream.id))
        if size:
            self._pieces.append(data)
            self.put_bytes += size
            self.window_bytes -= size
            stream.send_bytes -= size
        if end:
            self._end(stream)

    def _end(self, stream: Stream) -> None:
        stream.local_ended = True
        if stream.remote_ended:
            self._closed(stream)

    def data(self, stream: Stream, data: bytes, end: bool) -> None:
        size = len(data)
        if not stream.queue and (
            not size
            or (
                size <= stream.send_bytes
                and size <= self.window_bytes
                and size <= self.max_frame_bytes
                and (size <= SMALL_BYTES or (not self._turns and self.put_bytes < TAKEN_AT_ONCE_BYTES))
            )
        ):
            self._put_data(stream, data, size, end)
            return
        if stream.queue is None:
            stream.queue = deque()
        if size:
            stream.queue.append(data)
            stream.queued_bytes += size
            self.queued_bytes += size
        stream.ends = end
        self.wake(stream)

    def answer(self, stream: Stream, block: bytes, data: bytes) -> bool:
        """Head and body of a whole answer. False: a part of it waits.

        Hot: head() and data() for the usual case in one step.
        """
        size, head_size = len(data), len(block)
        if (
            0 < size <= SMALL_BYTES
            and size <= stream.send_bytes
            and size <= self.window_bytes
            and head_size <= self.max_frame_bytes
            and stream.remote_ended
            and not stream.queue
            and not self.owes_table_update
        ):
            self._pieces += (
                pack_header(head_size << 8 | HEADERS, _COMPLETE_HEAD, stream.id),
                block,
                pack_header(size << 8 | DATA, END_STREAM, stream.id),
                data,
            )
            self.put_bytes += head_size + size
            self.window_bytes -= size
            stream.local_ended = True
            self._closed(stream)
            return True
        self.head(stream, block, not size)
        if size:
            self.data(stream, data, True)
        return not stream.queue

    def wake(self, stream: Stream) -> None:
        """The stream's window has grown, or its queue."""
        if stream.queue and stream.send_bytes > 0 and not stream.awaits_turn:
            stream.awaits_turn = True
            self._turns.append(stream)

    def drop(self, stream: Stream) -> None:
        """The stream is reset: nothing more of it is sent."""
        self.queued_bytes -= stream.queued_bytes
        stream.queued_bytes = 0
        stream.queue = None
        stream.ends = False
        if stream.awaits_turn:
            stream.awaits_turn = False
            self._turns.remove(stream)

    def abandon(self) -> None:
        """The connection is closed: nothing more is sent."""
        self._pieces = []
        self._turns.clear()
        self.put_bytes = self.queued_bytes = 0

    def take(self) -> bytes:
        """What is to be sent now. The caller takes again when that is sent."""
        progressed: dict[int, None] = {}
        if self._turns and self.window_bytes > 0:
            self._let_go(progressed)
        pieces = self._pieces
        if not pieces:
            return b""
        self._pieces = []
        self.put_bytes = 0
        taken = b"".join(pieces)
        for stream_id in progressed:
            self._writable(stream_id)
        return taken

    def _let_go(self, progressed: dict[int, None]) -> None:
        turns = self._turns
        most = max(TAKEN_AT_ONCE_BYTES, self.put_bytes + 1)  # at least one frame, whatever was put before
        while turns and self.window_bytes > 0 and self.put_bytes < most:
            stream = turns.pop(0)
            stream.awaits_turn = False
            if stream.send_bytes <= 0:
                continue  # SETTINGS have made its window smaller while it waited
            self._send_next(stream)
            progressed[stream.id] = None
            self.wake(stream)

    def _send_next(self, stream: Stream) -> None:
        """One frame of data, and the heads behind it."""
        queue = stream.queue
        assert queue
        data = queue[0]
        assert not isinstance(data, Queued)
        size = min(len(data), stream.send_bytes, self.window_bytes, self.max_frame_bytes)
        if size == len(data):
            queue.popleft()
        else:
            view = memoryview(data)
            data, queue[0] = view[:size], view[size:]
        end = stream.ends and not queue
        stream.queued_bytes -= size
        self.queued_bytes -= size
        self._put_data(stream, data, size, end)
        while queue and isinstance(item := queue[0], Queued):
            queue.popleft()
            self._put_head(stream, item.block, item.end)
