"""Last bytes leave with the end behind them, what keeps coming through a pipe, and neither side can tell."""

import errno
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from support.relaying import Relayed, Rig, rig
from support.trio_test import trio_test

from lbproxy.worker.io import splice
from lbproxy.worker.io.reactor import READ, FunctionHandler
from lbproxy.worker.io.splice import MOST_PIPES, PIPE_BYTES, Pipe, Pipes
from lbproxy.worker.relay.relay import Relay, Why
from lbproxy.worker.relay.side import BULK_BYTES, FULL_READS, READ_BYTES, Side

LARGE = bytes(range(256)) * 65536  # 16 MiB: more than the kernel buffers for a reader that does not read
both_kinds = pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
settled = trio.testing.wait_all_tasks_blocked


class Bench:
    """Relays with pipes."""

    def __init__(self, made: Rig) -> None:
        self.made = made
        self.pipes = Pipes()

    def start(self, *, tcp: bool = True, stall_s: float = 5.0) -> Relayed[Relay]:
        link = self.made.relay(Relay, tcp=tcp, stall_s=stall_s, pipes=self.pipes)
        link.relay.start()
        return link

    async def full(self, *, tcp: bool = True, stall_s: float = 5.0) -> tuple[Relayed[Relay], int]:
        """The backend has sent (how many bytes?) until nobody took more, and the client has read nothing."""
        for _ in range(20):
            link = self.start(tcp=tcp, stall_s=stall_s)
            sent = 0
            while more := link.backend.fill():
                sent += more
                await settled(0.02)
            if isinstance(link.relay.client.outbox, Pipe):
                return link, sent
            link.relay.cut()  # on a busy machine it came in small pieces, until the kernel held all it may: once more
        pytest.fail("it never came fast enough for a pipe")


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    """No pipe is in use when it is over, and no descriptor left."""
    before = len(os.listdir("/proc/self/fd"))
    async with rig() as made:
        bench = Bench(made)
        yield bench
        for relay in made._relays:
            relay.cut()
        assert bench.pipes._taken == 0
        bench.pipes.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not made.events


# The last bytes


@trio_test
async def test_the_last_bytes_and_the_end_leave_in_one_packet() -> None:
    async with running() as bench:
        link = bench.start()
        before = packets_in(link.client.plain)
        link.backend.plain.send(b"last words")
        link.backend.end()
        assert await link.client.rest() == b"last words"
        assert packets_in(link.client.plain) == before + 1
        await link.client.send(b"go on")
        assert await link.backend.receive(5) == b"go on"


def packets_in(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)[140:], sys.byteorder)


@both_kinds
@trio_test
async def test_the_last_bytes_of_either_side_arrive_and_then_its_end(tcp: bool) -> None:
    async with running() as bench:
        link = bench.start(tcp=tcp)
        link.backend.plain.send(b"last")
        link.backend.end()
        link.client.plain.send(b"words")
        link.client.end()
        assert await link.client.rest() == b"last"
        assert await link.backend.rest() == b"words"
        await link.ended.wait()
        assert link.relay.why is Why.DONE
        assert (link.relay.backend.received, link.relay.client.received) == (4, 5)


@trio_test
async def test_last_bytes_with_an_urgent_one_among_them_all_arrive_before_the_end() -> None:
    async with running() as bench:
        link = bench.start()
        link.backend.plain.send(b"last")
        link.backend.plain.send(b"!", socket.MSG_OOB)  # stands beside the others: nobody reads it
        link.backend.plain.send(b" words")
        link.backend.end()
        assert await link.client.rest() == b"last words"
        assert link.relay.backend.received == 10


@trio_test
async def test_last_words_arrive_although_a_reset_is_right_behind_them() -> None:
    async with running() as bench:
        link = bench.start()
        link.backend.plain.send(b"last words")
        link.backend.reset()
        assert await link.client.receive(10) == b"last words"
        with pytest.raises(ConnectionResetError):
            await link.client.rest()
        await link.ended.wait()
        assert link.relay.why is Why.BACKEND_GONE


@trio_test
async def test_last_words_that_nobody_takes_end_it() -> None:
    async with running() as bench:
        link = bench.start()
        link.client.end()
        assert await link.backend.rest() == b""
        link.client.reset()
        link.backend.plain.send(b"last words")
        link.backend.end()
        await link.ended.wait()
        assert link.relay.why is Why.CLIENT_GONE


# Much


@both_kinds
@trio_test
async def test_much_arrives_whole_both_ways_at_once(tcp: bool) -> None:
    async with running() as bench:
        link = bench.start(tcp=tcp)
        got: dict[str, bytes] = {}

        async def read(name: str) -> None:
            got[name] = await getattr(link, name).receive(len(LARGE))

        async with trio.open_nursery() as nursery:
            for name in ("client", "backend"):
                nursery.start_soon(getattr(link, name).send, LARGE)
            await settled(0.05)
            assert link.relay.client.pipe is not None
            assert link.relay.backend.pipe is not None
            for name in ("client", "backend"):
                nursery.start_soon(read, name)
        assert got == {"client": LARGE, "backend": LARGE}
        assert link.relay.client.received == link.relay.backend.received == len(LARGE)


@both_kinds
@trio_test
async def test_little_is_read_again_and_the_pipe_is_free_for_others(tcp: bool) -> None:
    async with running() as bench:
        link, sent = await bench.full(tcp=tcp)
        assert await link.client.receive(sent) == bytes(sent)
        for _ in range(2):
            await link.backend.send(b"a message")
            assert await link.client.receive(9) == b"a message"
        assert link.relay.client.pipe is None
        assert bench.pipes._taken == 0
        await link.client.send(b"an answer")
        assert await link.backend.receive(9) == b"an answer"


@trio_test
async def test_messages_take_no_pipe_however_many_they_are() -> None:
    async with running() as bench:
        link = bench.start()
        for size in (100, READ_BYTES, READ_BYTES + 1, BULK_BYTES):
            for _ in range(2 * FULL_READS):
                await link.backend.send(bytes(size))
                assert await link.client.receive(size) == bytes(size)
                await link.backend.send(b"x")
                assert await link.client.receive(1) == b"x"
        assert not bench.pipes._kept


@both_kinds
@trio_test
async def test_a_slow_reader_stops_the_other_side_with_one_fill_of_a_pipe(tcp: bool) -> None:
    async with running() as bench:
        link, sent = await bench.full(tcp=tcp)
        relay = link.relay
        assert 0 < len(relay.client.outbox) <= PIPE_BYTES
        assert relay.backend.received < sent
        before = relay.backend.received
        await trio.sleep(0.05)
        assert relay.backend.received == before
        assert await link.client.receive(sent) == bytes(sent)
        assert not relay.client.outbox


@both_kinds
@trio_test
async def test_an_end_is_passed_on_behind_what_the_pipe_holds(tcp: bool) -> None:
    async with running() as bench:
        link, sent = await bench.full(tcp=tcp)
        link.backend.end()
        await settled(0.02)
        assert await link.client.rest() == bytes(sent)
        assert link.relay.client.pipe is None
        await link.client.send(b"and you?")
        assert await link.backend.receive(8) == b"and you?"
        link.client.end()
        await link.ended.wait()
        assert link.relay.why is Why.DONE


@trio_test
async def test_a_client_that_has_ended_still_gets_what_the_pipe_holds() -> None:
    async with running() as bench:
        link, sent = await bench.full()
        link.client.end()
        assert await link.backend.rest() == b""
        assert await link.client.receive(sent) == bytes(sent)
        link.backend.end()
        await link.ended.wait()
        assert link.relay.why is Why.DONE


@trio_test
async def test_a_client_that_resets_ends_it_and_the_pipe_is_not_used_again() -> None:
    async with running() as bench:
        link, _ = await bench.full()
        link.client.reset()
        await link.ended.wait()
        assert link.relay.why is Why.CLIENT_GONE
        assert not bench.pipes._kept
        with pytest.raises(ConnectionResetError):
            await link.backend.rest()


@trio_test
async def test_a_reset_of_the_backend_comes_behind_what_the_pipe_holds() -> None:
    async with running() as bench:
        link, _ = await bench.full()
        before = link.relay.backend.received
        link.backend.reset()
        with pytest.raises(ConnectionResetError):
            await link.client.rest()
        await link.ended.wait()
        assert link.relay.why is Why.BACKEND_GONE
        assert link.relay.backend.received >= before


@trio_test
async def test_a_cut_closes_a_pipe_with_bytes_in_it() -> None:
    async with running() as bench:
        link, _ = await bench.full()
        link.relay.cut()
        assert link.relay.why is Why.CUT
        assert bench.pipes._taken == 0
        assert not bench.pipes._kept


@trio_test
async def test_a_reader_that_takes_nothing_stalls_it() -> None:
    async with running() as bench:
        link, _ = await bench.full(stall_s=0.3)
        with trio.fail_after(5):
            await link.ended.wait()
        assert link.relay.why is Why.STALLED


@trio_test
async def test_a_slow_reader_is_not_stalled_while_it_reads() -> None:
    async with running() as bench:
        link, sent = await bench.full(tcp=False, stall_s=0.3)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.backend.send, bytes(1 << 21))
            left = sent + (1 << 21)
            while left:
                left -= len(await link.client.receive(min(left, 1 << 18)))
                await trio.sleep(0.05)
        assert trio.current_time() - began > 0.4
        assert link.relay.why is None


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
@trio_test
async def test_a_kernel_that_refuses_a_source_is_not_asked_again(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def refuse(*args: object, **more: object) -> int:
        nonlocal asked
        asked += 1
        raise OSError(code, "refused")

    monkeypatch.setattr(os, "splice", refuse)
    async with running() as bench:
        link = bench.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.backend.send, LARGE)
            assert await link.client.receive(len(LARGE)) == LARGE
        assert asked == 1
        assert link.relay.client.pipe is None


@pytest.mark.parametrize("tail", [0, 5])
@trio_test
async def test_what_a_pipe_holds_for_a_socket_that_refuses_it_is_read_and_sent(
    tail: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Pipe, target: int) -> None:
        raise OSError(errno.EINVAL, "refused")

    monkeypatch.setattr(splice.Pipe, "drain", refuse)
    async with running() as bench:
        link = bench.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.backend.send, LARGE + b"x" * tail)
            await settled(0.05)
            assert await link.client.receive(len(LARGE) + tail) == LARGE + b"x" * tail
        assert link.relay.client.pipe is None
        link.backend.end()
        assert await link.client.rest() == b""


@trio_test
async def test_an_urgent_byte_in_the_way_of_a_pipe_neither_stops_it_nor_spins() -> None:
    async with running() as bench:
        link, sent = await bench.full()
        assert await link.client.receive(sent - 1) == bytes(sent - 1)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await link.backend.send(LARGE)
                link.backend.plain.setblocking(True)
                link.backend.plain.send(b"!", socket.MSG_OOB)
                link.backend.plain.setblocking(False)
                await link.backend.send(LARGE)

            nursery.start_soon(send)
            assert len(await link.client.receive(1 + 2 * len(LARGE))) == 1 + 2 * len(LARGE)
        link.backend.end()
        assert await link.client.rest() == b""


@trio_test
async def test_without_a_pipe_left_it_is_read_as_ever() -> None:
    async with running() as bench:
        taken = [bench.pipes.take() for _ in range(MOST_PIPES)]
        link = bench.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.backend.send, LARGE)
            assert await link.client.receive(len(LARGE)) == LARGE
        for pipe in taken:
            assert pipe is not None
            bench.pipes.give_back(pipe)


@trio_test
async def test_one_event_moves_only_so_much_through_a_pipe() -> None:
    async with running() as bench:
        link = bench.start()
        sent = link.backend.fill()
        assert sent > FULL_READS * BULK_BYTES
        link.relay.backend.on_ready(READ)
        assert link.relay.backend.received < FULL_READS * BULK_BYTES + 5 * PIPE_BYTES
        assert await link.client.receive(sent) == bytes(sent)


@trio_test
async def test_nothing_spins_while_a_pipe_waits() -> None:
    async with running() as bench:
        waiting, ended = (await bench.full())[0], (await bench.full())[0]
        ended.backend.end()
        await settled(0.05)
        events = 0

        def count(mask: int, end: Side) -> None:
            nonlocal events
            events += 1
            end.on_ready(mask)

        reactor = bench.made.reactor
        for end in (waiting.relay.client, waiting.relay.backend, ended.relay.client, ended.relay.backend):
            if reactor.handlers[end.sock.fileno()] is not None:
                reactor.handle(end.sock.fileno(), FunctionHandler(partial(count, end=end)))
        await trio.sleep(0.1)
        assert events < 5  # the kernel may still find room for a little
