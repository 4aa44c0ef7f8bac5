"""A connection goes from an old worker to a new one, and neither end of it notices. Real sockets."""

import random
from dataclasses import replace

import pytest
import trio
from support.moving import workers
from support.peer import Peer
from support.proxy import FIRST_CELL, GET, LISTENER_CELL, OK, Setup, answering, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import DrainSettings, ListenerLimits
from lbproxy.worker.relay.tcp import TcpClient

TCP = Setup(mode="tcp")
MIB = 1 << 20


async def shouting(peer: Peer) -> None:
    """Gives back what it hears, in capitals, and ends when the client does."""
    while data := await peer.sock.recv(65536):
        await peer.send(data.upper())
    peer.end()
    await peer.wait_ended()


async def counting(peer: Peer) -> None:
    """Sends numbers until the client ends, and reads numbers."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_numbers, peer, 4000)
        await read_numbers(peer, 4000)
    peer.end()
    await peer.wait_ended()


async def send_numbers(peer: Peer, count: int) -> None:
    dice = random.Random(count)
    number = 0
    while number < count:
        many = dice.choice((1, 2, 7, 50, 400))
        await peer.send(b"".join(b"%08d" % at for at in range(number, min(count, number + many))))
        number += many
        if dice.random() < 0.2:
            await trio.sleep(0.002)


async def read_numbers(peer: Peer, count: int) -> None:
    for number in range(count):
        assert await peer.exactly(8) == b"%08d" % number


@trio_test(timeout_s=8)
async def test_a_tcp_session_goes_on_in_the_new_worker_and_is_written_down_once() -> None:
    async with workers(shouting, setup=TCP) as lb:
        client = await lb.now.client()
        await client.send(b"hello")
        assert await client.exactly(5) == b"HELLO"
        old = await lb.replace()
        assert lb.whys == [""]
        assert (old.lanes.connections, lb.now.lanes.connections) == (0, 1)
        assert lb.now.count(Counter.TCP) == lb.now.count(Counter.LEASES) == 1
        assert lb.now.grid.sum(LISTENER_CELL, Counter.CONNECTIONS) == 1
        assert lb.now.grid.sum(LISTENER_CELL, Counter.ACCEPTED) == 1
        await client.send(b" again")
        assert await client.exactly(6) == b" AGAIN"
        client.end()
        assert await client.rest() == b""
        (record,) = await lb.now.wait_records(1)
        assert (record.request_bytes, record.response_bytes, record.error) == (11, 11, None)
        assert record.backend == "web.1"
        assert lb.now.count(Counter.REQUESTS) == 1


@trio_test(timeout_s=20)
async def test_numbers_pass_both_ways_through_twenty_workers() -> None:
    async with workers(counting, setup=TCP) as lb:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                client = await lb.now.client()
                nursery.start_soon(send_numbers, client, 4000)
                nursery.start_soon(read_numbers, client, 4000)
            for _ in range(20):
                await trio.sleep(random.uniform(0, 0.02))
                await lb.replace()
        assert set(lb.whys) == {""}
        assert len(lb.whys) >= 60


@trio_test(timeout_s=8)
async def test_what_neither_side_has_taken_yet_goes_along() -> None:
    async with workers(shouting, setup=replace(TCP, send_bytes=4096)) as lb:
        client = await lb.now.client(receive_bytes=4096)
        sent = bytes(random.Random(1).choices(b"abcdefgh", k=6 * MIB))

        async def send_all() -> None:
            await client.send(sent)
            client.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all)
            await wait_until(lambda: lb.now.lanes.records and waiting_in(lb.now.lanes.records[0]))
            await lb.replace()
            assert lb.whys == [""]
            assert waiting_in(lb.now.lanes.records[0])
            assert await client.exactly(3 * MIB) == sent[: 3 * MIB].upper()
            await lb.replace()
            assert await client.rest() == sent[3 * MIB :].upper()
        (record,) = await lb.now.wait_records(1)
        assert record.request_bytes == record.response_bytes == len(sent)


def waiting_in(record: object) -> bool:
    assert isinstance(record, TcpClient)
    return record.relay is not None and bool(record.relay.client.outbox)


@pytest.mark.parametrize("end", ["client", "backend"])
@trio_test(timeout_s=8)
async def test_a_half_closed_session_moves_with_the_half_that_is_open(end: str) -> None:
    ended = trio.Event()

    async def script(peer: Peer) -> None:
        if end == "backend":
            peer.end()
            ended.set()
            assert await peer.exactly(5) == b"hello"
            return
        assert await peer.rest() == b""
        ended.set()
        await asked.wait()
        await peer.send(b"hello")

    asked = trio.Event()
    async with workers(script, setup=TCP) as lb:
        client = await lb.now.client()
        if end == "client":
            client.end()
        else:
            assert await client.rest() == b""
        await ended.wait()
        await lb.replace()
        await lb.replace()
        assert lb.whys == ["", ""]
        asked.set()
        if end == "client":
            assert await client.rest() == b"hello"
        else:
            await client.send(b"hello")
            client.end()
        (record,) = await lb.now.wait_records(1)
        assert record.error is None


@trio_test(timeout_s=8)
async def test_a_session_that_no_worker_takes_stays_and_loses_nothing() -> None:
    async with workers(shouting, setup=TCP) as lb:
        client = await lb.now.client()
        await client.send(b"a")
        assert await client.exactly(1) == b"A"

        async def forget() -> None:
            lb.now.router.table = replace(lb.now.router.table, listeners=())
            await client.send(b"meanwhile")

        lb.before_take = forget
        old = await lb.replace()
        assert lb.whys == ["listener 1 is not in the table"]
        assert (old.lanes.connections, lb.now.lanes.connections) == (1, 0)
        assert await client.exactly(9) == b"MEANWHILE"
        client.end()
        assert await client.rest() == b""


@trio_test(timeout_s=8)
async def test_idle_connections_move_with_what_has_come_of_a_request() -> None:
    async with workers(answering(OK)) as lb:
        begun, kept, fresh, pipelined = [await lb.now.client() for _ in range(4)]
        for client in (begun, kept, pipelined):
            await client.send(GET)
            assert (await client.answer()).status == 200
        await begun.send(GET[:20])
        await wait_until(lambda: any(record.buffer == GET[:20] for record in lb.now.lanes.records))  # type: ignore[union-attr]
        old = await lb.replace()
        assert lb.whys == [""] * 4
        await old.empty()
        await begun.send(GET[20:])
        await pipelined.send(GET + GET)
        for client in (kept, fresh):
            await client.send(GET)
        for client in (begun, kept, fresh, pipelined, pipelined):
            assert (await client.answer()).status == 200
        assert lb.now.grid.sum(LISTENER_CELL, Counter.CONNECTIONS) == 4
        assert len(lb.now.records) == 8


@trio_test(timeout_s=8)
async def test_an_exchange_is_finished_where_it_began_and_then_its_connection_moves() -> None:
    asked, answer = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await answer.wait()
        await peer.send(OK)
        await answering(OK)(peer)

    async with workers(script) as lb:
        client = await lb.now.client()
        await client.send(GET)
        await asked.wait()
        old = await lb.replace()
        assert lb.whys == []
        answer.set()
        assert (await client.answer()).status == 200
        await wait_until(lambda: lb.whys == [""])
        await old.empty()
        await client.send(GET)
        assert (await client.answer()).status == 200


@trio_test(timeout_s=20)
async def test_clients_that_ask_all_the_time_see_no_refusal_and_no_reset() -> None:
    stop = trio.Event()
    answered = 0

    async with workers(answering(OK)) as lb:

        async def ask(client: Peer) -> None:
            nonlocal answered
            while not stop.is_set():
                await client.send(GET)
                assert (await client.answer()).status == 200
                answered += 1

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ask, await lb.now.client())
            for _ in range(10):
                await trio.sleep(0.02)
                await lb.replace()
            old = lb.olds[-1]
            await wait_until(lambda: not old.lanes.connections)
            assert lb.now.lanes.connections == 30
            stop.set()
        assert len(lb.now.records) == answered


# Drains


@trio_test(timeout_s=8)
async def test_a_drain_that_began_before_the_move_ends_in_the_time_that_was_left() -> None:
    async with workers(shouting, shouting, setup=replace(TCP, drain=DrainSettings(tcp_s=1.0))) as lb:
        client = await lb.now.client()
        await client.send(b"a")
        assert await client.exactly(1) == b"A"
        held = lb.now.lanes.records[0].lease
        assert held is not None
        index = held.backend.cell - FIRST_CELL
        lb.now.publish(1 - index)
        began = trio.current_time()
        await trio.sleep(0.4)
        old = await lb.replace()
        assert lb.whys == [""]
        assert old.drained == [held.backend.id]
        assert lb.now.drained == []
        await client.send(b"b")
        assert await client.exactly(1) == b"B"
        assert await client.rest() == b""
        assert 0.9 < trio.current_time() - began < 1.5
        assert lb.now.count(Counter.CUT, index) == 1
        assert lb.now.drained == [held.backend.id]


@pytest.mark.parametrize("moment", ["before_take", "before_release"])
@trio_test(timeout_s=8)
async def test_a_drain_that_begins_while_a_session_is_under_way_never_sees_nobody(moment: str) -> None:
    async with workers(shouting, shouting, setup=replace(TCP, drain=DrainSettings(tcp_s=0.3))) as lb:
        client = await lb.now.client()
        await client.send(b"a")
        assert await client.exactly(1) == b"A"
        held = lb.now.lanes.records[0].lease
        assert held is not None
        index = held.backend.cell - FIRST_CELL
        old = lb.now

        async def drain() -> None:
            assert lb.now is not old
            for worker in (old, lb.now):
                worker.publish(1 - index)
            await trio.sleep(0.5)  # longer than the grace
            assert lb.now.count(Counter.LEASES, index) >= 1
            assert old.drained == []

        setattr(lb, moment, drain)
        await lb.replace()
        assert await client.rest() == b""
        # A new worker that had nothing of the backend has said so before the session came: it says so again.
        times = 2 if moment == "before_take" else 1
        await wait_until(lambda: lb.now.drained == [held.backend.id] * times)
        assert old.drained == [held.backend.id]
        assert lb.now.count(Counter.CUT, index) == 1
        assert len(lb.now.records) == 1


@trio_test(timeout_s=8)
async def test_a_drain_that_begins_after_the_move_is_the_new_workers() -> None:
    async with workers(shouting, shouting, setup=replace(TCP, drain=DrainSettings(tcp_s=0.2))) as lb:
        client = await lb.now.client()
        await client.send(b"a")
        assert await client.exactly(1) == b"A"
        held = lb.now.lanes.records[0].lease
        assert held is not None
        await lb.replace()
        lb.now.publish(1 - (held.backend.cell - FIRST_CELL))
        assert await client.rest() == b""
        await wait_until(lambda: lb.now.drained == [held.backend.id])


@trio_test(timeout_s=8)
async def test_a_client_that_has_moved_counts_for_its_limit_in_the_new_worker_and_no_more_in_the_old_one() -> None:
    setup = replace(TCP, limits=ListenerLimits(connections_per_client=3))
    async with workers(shouting, setup=setup) as lb:
        clients = [await lb.now.client() for _ in range(3)]
        for client in clients:
            await client.send(b"a")
            assert await client.exactly(1) == b"A"
        old = await lb.replace()
        assert not old.lanes._counted
        assert len(lb.now.lanes._counted) == 3
        lb.now.expected_notices = 1  # it is said that a client was let go of
        refused = await lb.now.client()
        assert await refused.rest() == b""
        clients[0].close()
        await wait_until(lambda: len(lb.now.lanes._counted) == 2)
        admitted = await lb.now.client()
        await admitted.send(b"b")
        assert await admitted.exactly(1) == b"B"
