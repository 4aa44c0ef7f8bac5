"""A stream as a task sees it: what waits, what was lost. Played without a connection's socket."""

from typing import Any

import trio
from support.trio_test import trio_test

from lbproxy.wire.http2.errors import NoStreams
from lbproxy.worker.backends.http2_stream import BackendStream, first_with_room
from lbproxy.worker.backends.stream_owner import Loss

virtual = trio_test(clock="autojump", timeout_s=100)


class FakeConnection:
    """What a stream asks of its connection."""

    def __init__(self, *, room: bool = True) -> None:
        self.has_room = room
        self.is_congested = False
        self.done: list[tuple[object, ...]] = []
        self.queued = 0

    def begin_stream(self, owner: object, block: bytes, *, end: bool) -> int:
        if not self.has_room:
            raise NoStreams("full")
        self.done.append(("begin", block, end))
        return 1

    def put(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        self.done.append(("put", data, end))

    def pending(self, stream_id: int) -> int:
        return self.queued

    def credit(self, stream_id: int, size: int) -> None:
        self.done.append(("credit", size))

    def leave(self, stream_id: int) -> None:
        self.done.append(("leave",))


def made(connection: Any) -> BackendStream:
    return BackendStream(connection, reused=False)


@virtual
async def test_data_is_taken_whole_and_its_padding_is_credited() -> None:
    connection = FakeConnection()
    stream = made(connection)
    stream.begin(b"block", end=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.wait_change)
        await trio.testing.wait_all_tasks_blocked()
        stream.on_data(b"one", 10, False)
    stream.on_data(b"two", 3, True)
    assert (stream.has_data, stream.has_ended) == (True, True)
    assert stream.take() == b"onetwo"
    assert (stream.has_data, stream.take()) == (False, b"")
    assert connection.done == [("begin", b"block", True), ("credit", 13)]


@virtual
async def test_a_lost_stream_takes_nothing_more() -> None:
    connection = FakeConnection()
    stream = made(connection)
    stream.begin(b"block", end=False)
    connection.queued = 5
    assert stream.pending == 5
    stream.on_lost(Loss("gone"))
    stream.put(b"more")
    assert stream.pending == 0
    assert connection.done == [("begin", b"block", False)]


@virtual
async def test_a_place_that_was_taken_meanwhile_is_no_request_that_was_sent() -> None:
    stream = made(FakeConnection(room=False))
    stream.begin(b"block", end=True)
    assert stream.loss is not None
    assert stream.loss.is_unread
    stream.leave()


def test_the_first_connection_with_room_is_filled() -> None:
    full, free, other = FakeConnection(room=False), FakeConnection(), FakeConnection()
    found: Any = first_with_room([full, free, other])  # type: ignore[list-item]
    assert found is free
    assert first_with_room([]) is None
