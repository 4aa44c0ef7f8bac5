"""Connections of one client over all workers, counted in shared memory."""

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from support.peer import connect
from support.proxy import GET, LANES, OK, Setup, answering, proxy, wait_until
from support.trio_test import trio_test
from support.ws import upgrade_request

from lbproxy.link.grid import Grid
from lbproxy.settings import ListenerLimits
from lbproxy.telemetry.events import Notice
from lbproxy.worker.front.client_counts import ClientCounts


@pytest.fixture
def grid() -> Iterator[Grid]:
    grid = Grid.create(3, 5)
    yield grid
    grid.close()


def test_the_connections_of_all_workers_count_together(grid: Grid) -> None:
    first, second = ClientCounts(grid, 0), ClientCounts(grid, 2)
    held = [first.came(b"192.0.2.7", 3), second.came(b"192.0.2.7", 3), first.came(b"192.0.2.7", 3)]
    assert all(held)
    assert second.came(b"192.0.2.7", 3) == first.came(b"192.0.2.7", 3) == ()
    assert second.came(b"192.0.2.8", 3)
    first.left(held[0])
    assert second.came(b"192.0.2.7", 3)


def test_what_a_dead_worker_held_is_free_again(grid: Grid) -> None:
    dead, other = ClientCounts(grid, 1), ClientCounts(grid, 0)
    assert dead.came(b"192.0.2.7", 2)
    assert other.came(b"192.0.2.7", 2)
    assert not other.came(b"192.0.2.7", 2)
    grid.clear_gauges(1)
    assert other.came(b"192.0.2.7", 2)
    assert not other.came(b"192.0.2.7", 2)


def test_an_ipv6_customer_is_one_client(grid: Grid) -> None:
    counts = ClientCounts(grid, 0)
    assert counts.came(b"2001:db8:1:2::3", 1)
    assert not counts.came(b"2001:db8:1:2:ffff::4", 1)
    assert counts.came(b"2001:db8:1:3::3", 1)


def test_no_client_is_refused_for_thousands_of_others(grid: Grid) -> None:
    counts = ClientCounts(grid, 0)
    ips = [str(IPv4Address(0x0A000000 + number)).encode() for number in range(20_000)]
    refused = [ip for ip in ips if not counts.came(ip, 5)]
    assert len(refused) <= 1


def test_a_salt_is_of_its_grid(grid: Grid) -> None:
    other = Grid.create(3, 5)
    assert ClientCounts(grid, 0).came(b"192.0.2.7", 9) != ClientCounts(other, 0).came(b"192.0.2.7", 9)
    other.close()


@pytest.mark.parametrize("lane", [*LANES, "h2"])
@trio_test(timeout_s=8)
async def test_one_connection_more_is_closed_until_another_ends(lane: str) -> None:
    setup = Setup(limits=ListenerLimits(connections_per_client=2))
    async with proxy(lane, answering(OK), setup=setup) as lb:
        one, two = await lb.client(), await lb.client()
        for client in (one, two):
            await client.send(GET)
            assert (await client.answer()).status == 200
        three = await connect(lb.address)  # let go of before a handshake
        assert await three.rest() == b""
        three.close()
        lb.expected_notices = 1
        assert "127.0.0.1 has 2 connections (limits.connections_per_client)" in lb.notices[0]
        assert isinstance(lb.events[-1], Notice)
        one.close()
        await wait_until(lambda: lb.lanes.connections == 1)
        again = await lb.client()
        # Whatever becomes of it, it is counted once.
        await again.send(GET if lane == "h2" else upgrade_request())
        await again.answer()


@trio_test(timeout_s=8)
async def test_the_client_that_a_proxy_header_announces_is_counted_and_its_proxy_is_not() -> None:
    setup = Setup(
        limits=ListenerLimits(connections_per_client=1), proxy_protocol="accept", trusted=("127.0.0.1", "10.0.0.0/8")
    )
    async with proxy("express", answering(OK), setup=setup) as lb:
        for ip, answered in ((b"192.0.2.7", True), (b"192.0.2.7", False), (b"10.0.0.1", True), (b"10.0.0.1", True)):
            client = await lb.client()
            await client.send(b"PROXY TCP4 %b 127.0.0.1 1 80\r\n" % ip + GET)
            if answered:
                assert (await client.answer()).status == 200
            else:
                assert await client.rest() == b""
        lb.expected_notices = 1
