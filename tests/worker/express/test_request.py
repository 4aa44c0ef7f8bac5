"""The express lane's way there: what is read of a client, when it is forwarded, what is let go of when not."""

import socket

import pytest
import trio
import trio.testing
from support.peer import Peer
from support.proxy import GET, OK, Setup, answering, get, never_answering, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.link.grid import Counter
from lbproxy.settings import ListenerTimeouts, PoolTimeouts
from lbproxy.worker.backends.connections import ConnectFailed, Crowded
from lbproxy.worker.express import request as module
from lbproxy.worker.handover import READ_AHEAD_BYTES


@trio_test(timeout_s=8)
async def test_a_head_waits_in_its_buffer_until_it_is_whole() -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        await client.dribble(get(b"/", b"A: b"))
        assert (await client.answer()).status == 200
        assert not lb.lanes.handed_over


@pytest.mark.parametrize("cut", range(1, len(post(b"abc")), 3))
@trio_test(timeout_s=8)
async def test_a_request_may_be_cut_anywhere(cut: int) -> None:
    data = post(b"abc")
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.dribble(data, cut)
            assert (await client.answer()).status == 200
        assert not lb.lanes.handed_over
        assert lb.backends[0].received.count(b"\r\n\r\nabc") == 3


@trio_test(timeout_s=8)
async def test_a_repeated_head_costs_nothing_and_still_has_an_id_of_its_own() -> None:
    async with proxy("express", answering(OK)) as lb:
        client, other = await lb.client(), await lb.client()
        ids = set()
        for asked in (GET, GET, GET, get(b"/x"), GET, GET):
            for peer in (client, other):
                await peer.send(asked)
                ids.add((await peer.answer()).get(b"x-request-id"))
        assert len(ids) == 12
        heads = lb.backends[0].received.split(b"\r\n\r\n")
        plain = {
            b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"X-Request")) for head in heads
        }
        assert len(plain) == 3  # one for each of the two, and nothing behind the last


@trio_test(timeout_s=8)
async def test_pipelined_requests_take_turns_with_everybody_else() -> None:
    async with proxy("express", answering(OK)) as lb:
        greedy, modest = await lb.client(), await lb.client()
        await greedy.send(GET * 1000)
        await modest.send(GET)
        await modest.answer()
        assert lb.router.tally.served < 500
        for _ in range(1000):
            await greedy.answer()


@trio_test(timeout_s=20)
async def test_who_says_too_much_ahead_is_not_read_until_it_is_answered() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.send(OK)
        await answering(OK)(peer)

    async with proxy("express", script) as lb:
        go_on = trio.Event()
        client = await lb.client()
        await client.send(GET)
        (record,) = lb.lanes._records
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, GET * 10_000)
            await wait_until(lambda: len(record.buffer) >= READ_AHEAD_BYTES)  # type: ignore[union-attr]
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert len(record.buffer) < READ_AHEAD_BYTES + 20_000  # type: ignore[union-attr]
            go_on.set()
            for _ in range(10_001):
                assert (await client.answer()).status == 200
        assert lb.router.tally.served == 10_001


@trio_test(timeout_s=8)
async def test_a_connection_that_takes_its_time_is_waited_for_without_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback a connection stands at once: so one is begun to nowhere, and turned to the backend later."""
    async with proxy("express", answering(OK), setup=Setup(pool_timeouts=PoolTimeouts(connect_s=0.3))) as lb:
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        crowd = [socket.socket() for _ in range(4)]
        for sock in crowd:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        real = module.begin_connect
        monkeypatch.setattr(module, "begin_connect", lambda address: _begun(full.getsockname()))
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.leases == 1)
        assert not lb.lanes._in_tasks
        monkeypatch.setattr(module, "begin_connect", real)
        lb.publish(0)
        await wait_until(lambda: lb.lanes.handed_over == {"connect": 1})
        lb.publish(0)  # a new table: nobody is passed over
        assert (await client.answer()).status == 200
        for sock in (*crowd, full):
            sock.close()


def _begun(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(address)
    return sock


@pytest.mark.parametrize("asked", [GET, post(b"abc"), post(b"x" * 100_000)], ids=["get", "post", "upload"])
@trio_test(timeout_s=8)
async def test_what_waited_for_its_connection_is_sent_once(monkeypatch: pytest.MonkeyPatch, asked: bytes) -> None:
    looked = 0
    real = module.finish_connect

    def not_yet(sock: socket.socket, address: Address) -> bool:
        nonlocal looked
        looked += 1
        return looked > 1 and real(sock, address)

    monkeypatch.setattr(module, "finish_connect", not_yet)
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        for _ in range(2):
            await client.send(asked)
            assert (await client.answer()).status == 200
        assert looked == 2
        assert not lb.lanes.handed_over
        assert lb.backends[0].received.count(b" HTTP/1.1\r\n") == 2


@trio_test(timeout_s=8)
async def test_a_connection_to_itself_is_no_backend_and_nothing_is_sent_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a port of the ephemeral range where nobody listens: the request would come back as its own answer."""
    async with proxy("express", answering(OK)) as lb:
        itself = socket.socket()
        address = ("127.0.0.2", lb.backends[0].address.port)
        itself.bind(address)
        itself.connect(address)
        itself.setblocking(False)
        monkeypatch.setattr(module, "begin_connect", lambda to: itself)
        client = await lb.client()
        await client.send(GET)
        await wait_until(lambda: lb.lanes.handed_over == {"connect": 1})
        lb.publish(0)  # a new table: nobody is passed over
        assert (await client.answer()).status == 200
        assert itself.fileno() == -1


@pytest.mark.parametrize("how", ["refused", "crowded", "secure"])
@trio_test(timeout_s=8)
async def test_who_cannot_be_connected_to_at_once_is_left_to_the_task_lane(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def begin(address: object) -> None:
        if how == "refused":
            raise ConnectFailed("refused")
        if how == "crowded":
            raise Crowded("no descriptor is left")

    async with proxy("express", answering(OK)) as lb:
        monkeypatch.setattr(module, "begin_connect", begin)
        client = await lb.client()
        await client.send(post(b"abc"))
        if how == "refused":
            await wait_until(lambda: lb.router.waiting("web") == 1)
            assert [message.why for message in lb.posted] == ["refused"]  # type: ignore[union-attr]
            lb.publish(0)
        assert (await client.answer()).status == 200
        assert len(lb.posted) == (how == "refused")
        assert lb.lanes.handed_over == {{"refused": "connect"}.get(how, how): 1}
        assert lb.backends[0].received.endswith(b"\r\n\r\nabc")


@trio_test(timeout_s=8)
async def test_a_short_body_that_stalls_costs_no_backend() -> None:
    async with proxy("express", answering(OK), setup=Setup(timeouts=ListenerTimeouts(body_s=0.2))) as lb:
        client = await lb.client()
        await client.send(post(b"abcdef")[:-3])
        assert (await client.answer()).status == 408
        assert not lb.backends[0].peers
        assert lb.count(Counter.REQUESTS) == 0


@trio_test(timeout_s=8)
async def test_a_client_that_speaks_and_leaves_in_one_breath_is_gone() -> None:
    async with proxy("express", never_answering) as lb:
        client = await lb.client()
        await client.send(GET)
        client.end()
        (record,) = await lb.wait_records(1)
        assert (record.status, record.response_bytes) == (499, 0)


@trio_test(timeout_s=8)
async def test_the_bytes_of_an_earlier_answer_are_not_counted_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.wait_ended()

    async with proxy("express", script) as lb:
        client = await lb.client()
        await client.send(GET)
        await client.answer()
        await client.send(GET)
        await wait_until(lambda: lb.leases == 1)
        client.close()
        records = await lb.wait_records(2)
        assert [(record.status, record.response_bytes) for record in records] == [(200, 5), (499, 0)]
