"""Messages and descriptors over a real socketpair: whole, in order, and never mistaken for one another."""

import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trio_test import trio_test

from lbproxy.link.channel import FDS_A_SEND, MAX_MESSAGE_BYTES, Channel
from lbproxy.link.codec import LinkBroken, encode
from lbproxy.link.messages import Applied, AskStats, CopyAccess, LogFile, Publish, Stats, Stop, ToControl, ToWorker
from lbproxy.model import RoutingTable

LARGE = Stats(1, 2, 3, {str(number): number for number in range(30_000)})  # more than the kernel buffers


def link() -> tuple[Channel, Channel]:
    """Control's end, a worker's end."""
    ours, theirs = socket.socketpair()
    return Channel(ours, ToControl), Channel(theirs, ToWorker)


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Channel, Channel]]:
    """With their writers at work."""
    control, worker = link()
    try:
        async with trio.open_nursery() as writers:
            writers.start_soon(control.run_writer)
            writers.start_soon(worker.run_writer)
            yield control, worker
            writers.cancel_scope.cancel()
    finally:
        control.close()
        worker.close()


@contextmanager
def files(count: int) -> Iterator[list[int]]:
    """Open files, each of which says its own number."""
    made = []
    try:
        for number in range(count):
            made.append(os.memfd_create("numbered"))
            os.write(made[-1], str(number).encode())
        yield made
    finally:
        for fd in made:
            os.close(fd)


def number_of(fd: int) -> int:
    """What a received descriptor says; it is closed."""
    number = int(os.pread(fd, 16, 0))
    os.close(fd)
    return number


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@trio_test
async def test_messages_arrive_whole_and_in_order_both_ways() -> None:
    async with linked() as (control, worker):
        for ask in range(100):
            control.post(AskStats(ask))
            worker.post(Applied(ask))
        assert [await worker.receive() for _ in range(100)] == [AskStats(ask) for ask in range(100)]
        assert [await control.receive() for _ in range(100)] == [Applied(ask) for ask in range(100)]


@trio_test
async def test_what_is_posted_before_the_writer_runs_is_sent() -> None:
    control, worker = link()
    worker.post(Applied(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run_writer)
        assert await control.receive() == Applied(1)
        nursery.cancel_scope.cancel()
    control.close()
    worker.close()


@trio_test
async def test_a_message_larger_than_the_sockets_buffer_arrives_in_parts() -> None:
    async with linked() as (control, worker):
        worker.post(LARGE)
        worker.post(Applied(2))
        assert await control.receive() == LARGE
        assert await control.receive() == Applied(2)


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, 60), max_size=12))
def test_frames_are_found_whatever_the_cuts(cuts: list[int]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        control = Channel(ours, ToControl)
        data = b"".join(frame(encode(Applied(epoch))) for epoch in range(8))
        arrived: list[object] = []

        async def read() -> None:
            while (message := await control.receive()) is not None:
                arrived.append(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for cut in cuts:
                theirs.send(data[:cut] or b"")
                data = data[cut:]
                await trio.testing.wait_all_tasks_blocked()
            theirs.sendall(data)
            theirs.close()
        assert arrived == [Applied(epoch) for epoch in range(8)]
        control.close()

    trio.run(main)


def frame(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


@pytest.mark.parametrize("count", [1, FDS_A_SEND - 1, FDS_A_SEND, FDS_A_SEND + 1, 3 * FDS_A_SEND + 7])
@trio_test
async def test_descriptors_arrive_with_their_message_however_many(count: int) -> None:
    with files(count) as sent:
        async with linked() as (control, worker):
            control.post(Publish(RoutingTable(1, "", (), (), ()), tuple(range(count))), sent)
            message = await worker.receive()
            received = worker.take_fds(len(message.sockets))
            assert [number_of(fd) for fd in received] == list(range(count))


@trio_test
async def test_descriptors_of_messages_that_follow_each_other_are_not_mixed() -> None:
    with files(30) as sent:
        async with linked() as (control, worker):
            for start in range(0, 30, 3):
                control.post(AskStats(start), sent[start : start + 3])
                control.post(LogFile("a"))
            for start in range(0, 30, 3):
                assert await worker.receive() == AskStats(start)
                assert [number_of(fd) for fd in worker.take_fds(3)] == [start, start + 1, start + 2]
                assert await worker.receive() == LogFile("a")


@trio_test
async def test_descriptors_wait_behind_a_message_that_the_peer_does_not_take_yet() -> None:
    with files(2 * FDS_A_SEND) as sent:
        async with linked() as (control, worker):
            control.post(Publish(RoutingTable(1, "x" * 1_000_000, (), (), ()), ()))
            control.post(AskStats(1), sent)
            await trio.testing.wait_all_tasks_blocked()
            assert isinstance(await worker.receive(), Publish)
            assert await worker.receive() == AskStats(1)
            assert [number_of(fd) for fd in worker.take_fds(len(sent))] == list(range(len(sent)))


@trio_test
async def test_a_socket_that_is_given_is_closed_here_when_it_is_sent_or_when_the_channel_ends() -> None:
    async with linked() as (control, worker):
        ours, given = socket.socketpair()
        control.post(CopyAccess(True), give=[given])
        assert await worker.receive() == CopyAccess(True)
        (fd,) = worker.take_fds(1)
        await trio.testing.wait_all_tasks_blocked()
        assert given.fileno() == -1
        os.close(fd)
        assert ours.recv(1) == b""
        ours.close()
    control, worker = link()
    ours, given = socket.socketpair()
    control.post(CopyAccess(True), give=[given])  # no writer sends it
    control.close()
    worker.close()
    assert given.fileno() == -1
    ours.close()


@trio_test
async def test_a_received_descriptor_is_not_inherited() -> None:
    with files(1) as sent:
        async with linked() as (control, worker):
            control.post(AskStats(1), sent)
            await worker.receive()
            (fd,) = worker.take_fds(1)
            assert not os.get_inheritable(fd)
            os.close(fd)


@trio_test
async def test_fewer_descriptors_than_announced_break_the_link() -> None:
    with files(1) as sent:
        async with linked() as (control, worker):
            control.post(AskStats(1), sent)
            await worker.receive()
            with pytest.raises(LinkBroken, match="2 descriptors announced, 1 came"):
                worker.take_fds(2)


@trio_test
async def test_descriptors_that_nobody_took_are_closed_with_the_channel() -> None:
    before = open_fds()
    with files(3) as sent:
        async with linked() as (control, worker):
            control.post(AskStats(1), sent)
            await worker.receive()
    assert open_fds() == before


@trio_test
async def test_a_process_without_room_for_descriptors_does_not_take_others_for_them() -> None:
    with files(3) as sent:
        async with linked() as (control, worker):
            control.post(AskStats(1), sent)
            await trio.testing.wait_all_tasks_blocked()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(sent) + 1, hard))
            try:
                with pytest.raises(LinkBroken, match="lost"):
                    await worker.receive()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@trio_test
async def test_the_end_of_the_other_side_is_told() -> None:
    async with linked() as (control, worker):
        worker.close()
        assert await control.receive() is None


@trio_test
async def test_what_was_said_before_the_end_is_heard() -> None:
    async with linked() as (control, worker):
        worker.post(Applied(1))
        await trio.testing.wait_all_tasks_blocked()
        worker.close()
        assert await control.receive() == Applied(1)
        assert await control.receive() is None


@trio_test
async def test_an_end_with_unread_messages_is_an_end_like_any_other() -> None:
    async with linked() as (control, worker):
        control.post(Stop(1.0))
        await trio.testing.wait_all_tasks_blocked()
        worker.close()  # the kernel tells it as a reset
        assert await control.receive() is None


@trio_test
async def test_an_end_in_the_middle_of_a_message_is_an_end() -> None:
    ours, theirs = socket.socketpair()
    control = Channel(ours, ToControl)
    theirs.sendall(frame(encode(Applied(1)))[:-1])
    theirs.close()
    assert await control.receive() is None
    control.close()


@trio_test
async def test_writing_to_a_peer_that_is_gone_ends_the_writer_quietly() -> None:
    control, worker = link()
    worker.close()
    control.post(Stop(1.0))
    await control.run_writer()
    control.post(Stop(1.0))
    control.close()


@trio_test
async def test_a_peer_that_reads_nothing_keeps_no_one_waiting() -> None:
    async with linked() as (control, worker):
        worker.post(LARGE)
        worker.post(Applied(1))
        control.post(Stop(1.0))
        assert await worker.receive() == Stop(1.0)


@pytest.mark.parametrize(
    "data",
    [
        frame(b"nonsense"),
        frame(b""),
        frame(encode(Stop(1.0))),  # control's to say, not a worker's
        struct.pack("!I", MAX_MESSAGE_BYTES + 1),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
@trio_test
async def test_nonsense_breaks_the_link(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    control = Channel(ours, ToControl)
    theirs.sendall(data)
    with pytest.raises(LinkBroken):
        await control.receive()
    control.close()
    theirs.close()


@trio_test
async def test_a_cancelled_receive_loses_nothing() -> None:
    """Cancelled wherever it waits: behind each piece of the message."""
    ours, theirs = socket.socketpair()
    control = Channel(ours, ToControl)
    message = Stats(1, 2, 3, {str(number): number for number in range(1000)})
    data = frame(encode(message))
    cuts = [0, 1, 3, 4, 5, 100, 5000, len(data) - 1, len(data)]
    received = []
    for start, end in pairwise(cuts):
        theirs.sendall(data[start:end])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_it_waits, scope)
                received.append(await control.receive())
    assert received == [message]
    control.close()
    theirs.close()


async def cancel_when_it_waits(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


@trio_test
async def test_a_descriptor_that_is_given_is_closed_like_a_socket() -> None:
    before = open_fds()
    with files(1) as (one,):
        async with linked() as (control, worker):
            control.post(CopyAccess(True), give=[os.dup(one)])
            assert await worker.receive() == CopyAccess(True)
            assert number_of(worker.take_fds(1)[0]) == 0
            control.post(CopyAccess(True), give=[os.dup(one)])
        assert open_fds() == before + 1
