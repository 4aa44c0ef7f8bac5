"""Bytes, ends and errors cross a relay as if it were not there, in bounded memory."""

import gc
import socket
import tracemalloc
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing
from support.relaying import Relayed, Rig, rig
from support.trio_test import trio_test

from lbproxy.telemetry.events import Notice
from lbproxy.worker.io.dead_peer import notice_dead_peer
from lbproxy.worker.io.reactor import READ, WRITE, FunctionHandler
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.relay.relay import Relay, Why
from lbproxy.worker.relay.side import BULK_BYTES, TURN_BYTES

LARGE = bytes(range(256)) * 16384  # 4 MiB: more than the kernel buffers for a reader that does not read
both_kinds = pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])


def started(made: Rig, *, tcp: bool = True, stall_s: float = 5.0) -> Relayed[Relay]:
    relayed = made.relay(Relay, tcp=tcp, stall_s=stall_s)
    relayed.relay.start()
    return relayed


@both_kinds
@trio_test
async def test_bytes_pass_both_ways_and_are_counted(tcp: bool) -> None:
    async with rig() as made:
        link = started(made, tcp=tcp)
        for _ in range(3):
            await link.client.send(b"ask")
            assert await link.backend.receive(3) == b"ask"
            await link.backend.send(b"answer")
            assert await link.client.receive(6) == b"answer"
        assert link.relay.client.received == 9
        assert link.relay.backend.received == 18
        assert link.relay.why is None


@trio_test
async def test_what_was_in_hand_goes_first() -> None:
    async with rig() as made:
        link = made.relay(Relay)
        await link.client.send(b" more")
        await link.backend.send(b" more")
        link.relay.start(head=b"101 ", from_client=b"early", from_backend=b"eager")
        assert await link.client.receive(14) == b"101 eager more"
        assert await link.backend.receive(10) == b"early more"
        assert link.relay.backend.received == 10


@both_kinds
@trio_test
async def test_a_client_that_has_said_everything_still_hears_the_backend(tcp: bool) -> None:
    async with rig() as made:
        link = started(made, tcp=tcp)
        await link.client.send(b"last words")
        link.client.end()
        assert await link.backend.rest() == b"last words"
        await link.backend.send(b"an answer")
        assert await link.client.receive(9) == b"an answer"
        link.backend.end()
        assert await link.client.rest() == b""
        await link.ended.wait()
        assert link.relay.why is Why.DONE


@both_kinds
@trio_test
async def test_a_backend_that_has_said_everything_still_hears_the_client(tcp: bool) -> None:
    async with rig() as made:
        link = started(made, tcp=tcp)
        link.backend.end()
        assert await link.client.rest() == b""
        await link.client.send(b"a question")
        assert await link.backend.receive(10) == b"a question"
        link.client.end()
        await link.ended.wait()
        assert link.relay.why is Why.DONE


@both_kinds
@trio_test
async def test_an_end_is_passed_on_behind_the_last_byte(tcp: bool) -> None:
    async with rig() as made:
        link = started(made, tcp=tcp)
        async with trio.open_nursery() as nursery:

            async def send_everything() -> None:
                await link.backend.send(LARGE)
                link.backend.end()

            nursery.start_soon(send_everything)
            await trio.testing.wait_all_tasks_blocked(0.05)  # until nobody takes more
            assert await link.client.rest() == LARGE
        assert not link.ended.is_set()


@both_kinds
@trio_test
async def test_a_side_that_does_not_read_stops_the_other(tcp: bool) -> None:
    async with rig() as made:
        link = started(made, tcp=tcp)
        sent = 0
        while more := link.backend.fill():
            sent += more
            await trio.testing.wait_all_tasks_blocked(0.02)
        relay = link.relay
        assert 0 < len(relay.client.outbox) <= BULK_BYTES
        assert relay.backend.received < sent
        assert await link.client.receive(sent) == bytes(sent)
        assert relay.client.outbox == b""
        await link.client.send(b"and on it goes")
        assert await link.backend.receive(14) == b"and on it goes"


@trio_test
async def test_both_directions_may_be_full_at_once() -> None:
    async with rig() as made:
        link = started(made, tcp=False)
        got: dict[str, bytes] = {}

        async def read(name: str) -> None:
            got[name] = await getattr(link, name).receive(len(LARGE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.client.send, LARGE)
            nursery.start_soon(link.backend.send, LARGE)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert link.relay.client.outbox
            assert link.relay.backend.outbox
            nursery.start_soon(read, "client")
            nursery.start_soon(read, "backend")
        assert got == {"client": LARGE, "backend": LARGE}
        assert not link.relay.client.outbox


@trio_test
async def test_a_reset_by_the_client_reaches_the_backend_as_one() -> None:
    async with rig() as made:
        link = started(made)
        link.client.reset()
        with pytest.raises(ConnectionResetError):
            await link.backend.rest()
        await link.ended.wait()
        assert link.relay.why is Why.CLIENT_GONE


@trio_test
async def test_a_reset_by_the_backend_reaches_the_client_behind_its_last_words() -> None:
    async with rig() as made:
        link = started(made)
        await link.backend.send(b"last words")
        assert await link.client.receive(10) == b"last words"
        link.backend.reset()
        with pytest.raises(ConnectionResetError):
            await link.client.rest()
        await link.ended.wait()
        assert link.relay.why is Why.BACKEND_GONE


@trio_test
async def test_what_a_backend_said_before_it_stopped_listening_arrives() -> None:
    async with rig() as made:
        link = started(made)
        await link.client.send(b"never read")
        await trio.testing.wait_all_tasks_blocked(0.02)
        await link.backend.send(b"go away")
        link.backend.sock.close()  # with bytes unread: a reset
        assert await link.client.receive(7) == b"go away"
        await link.ended.wait()
        assert link.relay.why is Why.BACKEND_GONE


@both_kinds
@trio_test
async def test_a_client_that_left_ends_a_backend_that_keeps_talking(tcp: bool) -> None:
    async with rig() as made:
        link = started(made, tcp=tcp)
        link.client.sock.close()
        assert await link.backend.rest() == b""
        with suppress(OSError):
            while True:
                await link.backend.send(b"anybody there?")
        await link.ended.wait()
        assert link.relay.why is Why.CLIENT_GONE


@trio_test
async def test_a_cut_closes_both_at_once_and_is_said_once() -> None:
    async with rig() as made:
        link = started(made)
        lease = Lease()
        link.relay.hold(lease)
        lease.cut()
        assert link.relay.why is Why.CUT
        lease.cut()
        assert await link.client.rest() == b""
        assert await link.backend.rest() == b""
        assert link.ends == 1


@trio_test
async def test_a_lease_whose_grace_ended_before_the_relay_began_is_cut() -> None:
    async with rig() as made:
        link = made.relay(Relay)
        lease = Lease()
        lease.overdue = True
        link.relay.hold(lease)
        link.relay.start(head=b"nobody gets this")
        assert await link.client.rest() == b""
        assert link.ends == 1


@trio_test
async def test_a_write_that_stalls_ends_it() -> None:
    async with rig() as made:
        link = started(made, stall_s=0.15)
        link.backend.fill()
        with trio.fail_after(5):
            while not link.ended.is_set():
                with trio.move_on_after(0.02):
                    await link.ended.wait()
                link.backend.fill()
        assert link.relay.why is Why.STALLED


@trio_test
async def test_a_slow_reader_is_not_stalled_while_it_reads() -> None:
    async with rig() as made:
        link = started(made, tcp=False, stall_s=0.3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.backend.send, bytes(1 << 21))
            began, left = trio.current_time(), 1 << 21
            while left:
                left -= len(await link.client.receive(min(left, 1 << 17)))
                await trio.sleep(0.05)
        assert trio.current_time() - began > 0.6
        assert link.relay.why is None


@trio_test
async def test_an_idle_relay_does_not_stall() -> None:
    async with rig() as made:
        link = started(made, stall_s=0.05)
        with trio.move_on_after(0.4):
            await link.ended.wait()
        assert link.relay.why is None


@trio_test
async def test_events_without_cause_do_nothing() -> None:
    async with rig() as made:
        link = started(made)
        for mask in (READ, WRITE, READ | WRITE):
            link.relay.client.on_ready(mask)
            link.relay.backend.on_ready(mask)
        await link.client.send(b"still here")
        assert await link.backend.receive(10) == b"still here"
        link.relay.cut()
        link.relay.client.on_ready(READ | WRITE)
        link.relay.client.on_deadline()
        assert link.ends == 1


@trio_test
async def test_one_event_moves_only_so_much() -> None:
    async with rig() as made:
        link = made.relay(Relay)
        relay = link.relay
        relay.start()
        relay.backend.abandon()  # takes everything, at any speed
        made.reactor.unregister(relay.client.sock.fileno())
        sent = link.client.fill()
        assert sent > 2 * TURN_BYTES
        relay.client.on_ready(READ)
        assert 0 < relay.client.received < TURN_BYTES + BULK_BYTES


@trio_test
async def test_a_mistake_of_ours_costs_this_relay_and_no_other() -> None:
    async with rig() as made:
        broken, whole = started(made), started(made)

        def fail(data: bytes) -> None:
            raise RuntimeError("a mistake")

        broken.relay.client.deliver = fail
        await broken.client.send(b"x")
        await broken.ended.wait()
        assert broken.relay.why is Why.FAILED
        await whole.client.send(b"y")
        assert await whole.backend.receive(1) == b"y"
        (event,) = made.events
        assert isinstance(event, Notice)
        assert "a mistake" in event.text


@trio_test
async def test_nothing_spins_whatever_the_two_sides_have_ended() -> None:
    def start(made: Rig) -> list[Relayed[Relay]]:
        return [started(made, tcp=tcp) for tcp in (True, False)]

    async with rig() as made:
        half_closed, full, unread = start(made), start(made), start(made)
        for link in half_closed:
            link.client.end()
        for link in full:
            link.backend.fill()
        for link in unread:
            link.backend.fill()
            link.client.end()
        await trio.testing.wait_all_tasks_blocked(0.05)
        events = 0
        for link in (*half_closed, *full, *unread):
            for end in (link.relay.client, link.relay.backend):
                fd = end.sock.fileno()

                def count(mask: int, handle: partial[None]) -> None:
                    nonlocal events
                    events += 1
                    handle(mask)

                if end._events:
                    made.reactor.handle(fd, FunctionHandler(partial(count, handle=end.on_ready)))
        await trio.sleep(0.1)
        assert events == 0


@trio_test
async def test_an_idle_relay_costs_less_than_1280_bytes() -> None:
    async with rig() as made:
        many = [made.relay(Relay, tcp=False) for _ in range(100)]
        for link in many:
            await link.client.send(b"x")
        relays: list[Relay] = []
        tracemalloc.start()
        try:
            for link in many:
                socks = link.relay.client.sock, link.relay.backend.sock
                relays.append(relay := Relay(made.reactor, *socks, stall_s=5.0, on_end=lambda relay: None))
                relay.start()
                await link.backend.receive(1)
            gc.collect()
            each = tracemalloc.get_traced_memory()[0] / len(many)
        finally:
            tracemalloc.stop()
        assert each < 1280  # without the two sockets; 950 where this was written
        for relay in relays:
            relay.cut()


def test_a_dead_peer_is_noticed_and_accepted_sockets_inherit_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        notice_dead_peer(server, 75.0)
        with socket.create_connection(server.getsockname()):
            accepted = server.accept()[0]
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 38
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 9


def test_a_unix_socket_has_no_dead_peers() -> None:
    left, right = socket.socketpair()
    with left, right:
        notice_dead_peer(left, 75.0)
        assert left.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
