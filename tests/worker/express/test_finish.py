"""Every way an exchange in the express lane can end: what is let go of and counted."""

import socket
import sys
from functools import partial

import pytest
import trio
import trio.testing
from support.peer import Ended, Peer
from support.proxy import GET, OK, Setup, answering, get, never_answering, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.link.grid import Counter
from lbproxy.settings import DrainSettings, ListenerTimeouts, PoolTimeouts
from lbproxy.worker.express.finish import end_and_close
from lbproxy.worker.express.phase import IDLE
from lbproxy.worker.express.record import ExpressRecord


@trio_test(timeout_s=8)
async def test_the_last_answer_and_the_end_leave_in_one_packet() -> None:
    def packets_in(peer: Peer) -> int:
        return int.from_bytes(peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)[140:], sys.byteorder)

    async with proxy("express", answering(OK)) as lb:
        kept, closed = await lb.client(), await lb.client()
        before = packets_in(closed)
        for client, asked in ((kept, GET), (closed, get(b"/", b"Connection: close"))):
            await client.send(asked)
            assert (await client.answer()).body == b"hello"
        assert await closed.rest() == b""
        assert packets_in(closed) <= before + 2  # what was asked may be confirmed by a packet of its own
        await kept.send(GET)
        assert (await kept.answer()).status == 200


@trio_test(timeout_s=8)
async def test_the_last_answer_arrives_although_more_was_said_that_nobody_reads() -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        await wait_until(lambda: lb.lanes._records)
        (record,) = lb.lanes._records
        assert isinstance(record, ExpressRecord)
        close = partial(end_and_close, record)

        def close_late() -> None:
            client.sock._sock.send(b"more")  # type: ignore[attr-defined]
            close()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lbproxy.worker.express.finish.end_and_close", lambda record: close_late())
            await client.send(get(b"/", b"Connection: close"))
            assert (await client.answer()).body == b"hello"


@trio_test(timeout_s=8)
async def test_a_lease_on_its_way_to_a_task_can_be_cut() -> None:
    """Its grace may end between the hand-over and the task's first step."""
    async with proxy("express", never_answering) as lb:
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.leases == 1)
        (record,) = lb.lanes._records
        leases = next(iter(lb.router._leases.values()))
        assert leases.held == {record}
        record.resume("slow_reply")  # type: ignore[union-attr]
        (lease,) = leases.held
        assert lease is not record
        lease.overdue = True
        lease.cut()
        answer = await client.answer()
        assert (answer.status, answer.get(b"retry-after")) == (503, b"1")


@pytest.mark.parametrize(("asked", "status"), [(GET, 503), (post(b"abc"), 504)])
@trio_test(timeout_s=8)
async def test_a_grace_that_ends_while_nothing_is_answered_is_told(asked: bytes, status: int) -> None:
    setup = Setup(drain=DrainSettings(request_s=0.0))
    async with proxy("express", never_answering, setup=setup) as lb:
        client = await lb.client()
        await client.send(asked)
        await wait_until(lambda: lb.leases == 1)
        lb.publish()
        assert (await client.answer()).status == status
        assert lb.lanes.handed_over == {"cut": 1}


@trio_test(timeout_s=8)
async def test_a_grace_that_ends_in_an_answer_cuts_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        await peer.wait_ended()

    setup = Setup(drain=DrainSettings(request_s=0.0, transfer_s=0.0))
    async with proxy("express", script, setup=setup) as lb:
        client = await lb.client()
        await client.send(GET)
        await client.until(b"part")
        lb.publish()
        with pytest.raises(Ended):
            await client.exactly(1)
        (record,) = lb.records
        assert (record.status, record.response_bytes, record.error) == (200, 4, "cut")
        assert (lb.count(Counter.FAILED), lb.count(Counter.CUT), lb.count(Counter.REQUESTS)) == (1, 1, 1)
        assert not lb.lanes.handed_over
        assert lb.router.tally.served == 1, "it took this lane, to whatever end"


@trio_test(timeout_s=8)
async def test_every_exchange_is_counted_once() -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        asked = [GET, post(b"abc"), get(b"/", b"Expect: 100-continue"), get(b"/", method=b"BREW"), GET]
        for data in asked:
            await client.send(data)
            await client.answer()
        await lb.wait_records(len(asked))
        assert lb.count(Counter.REQUESTS) == len(asked)
        assert lb.count(Counter.FAILED) == 0
        assert [record.head.method for record in lb.records] == [data.split(b" ")[0] for data in asked]
        assert all(record.time > 1e9 and 0 <= record.duration_s < 5 for record in lb.records)


@trio_test(timeout_s=8)
async def test_a_deadline_means_what_the_record_waits_for() -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(GET)
            await client.answer()
        (record,) = lb.lanes._records
        assert isinstance(record, ExpressRecord)
        await trio.testing.wait_all_tasks_blocked()
        assert record.phase is IDLE
        record.on_deadline()  # a look, and not yet time
        assert 70 < record.deadline - trio.current_time() <= 75
        record.entered_at -= 75
        record.on_deadline()
        assert await client.rest() == b""


async def answering_thrice(peer: Peer) -> None:
    for _ in range(3):
        await peer.request()
        await peer.send(OK)
    await peer.request()
    await peer.wait_ended()


@pytest.mark.parametrize("waits_for", ["request", "answer"])
@trio_test(timeout_s=8)
async def test_a_timeout_that_is_longer_than_a_look_is_kept(waits_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is worked out when the record is looked at: nothing is written down while requests come and go."""
    for module in ("io.reactor", "express.request", "express.body"):
        monkeypatch.setattr(f"lbproxy.worker.{module}.LOOK_S", 0.1)
    timeouts = PoolTimeouts(response_s=0.5, keepalive_s=60)
    setup = Setup(timeouts=ListenerTimeouts(idle_s=0.5), pool_timeouts=timeouts)
    async with proxy("express", answering_thrice, setup=setup) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(GET)
            assert (await client.answer()).status == 200
            await trio.sleep(0.3)
        began = trio.current_time() - (0.3 if waits_for == "request" else 0.0)
        (record,) = lb.lanes._records
        assert isinstance(record, ExpressRecord)
        if waits_for == "answer":
            await client.send(GET)
            assert (await client.answer()).status == 504
        else:
            assert await client.rest() == b""
        assert 0.49 <= trio.current_time() - began < 1.5
