"""The shared connections of a worker: how many are made, who waits for one, and what a failure costs."""

import pytest
import trio
from h2.settings import SettingCodes
from support.http2_backend import serving, speak
from support.peer import Peer
from support.proxy import Proxy, proxy, wait_until
from support.setup import Setup
from support.trio_test import trio_test

from lbproxy.settings import PoolTimeouts
from lbproxy.worker.backends import http2_connections
from lbproxy.worker.backends.connections import ConnectFailed
from lbproxy.worker.backends.http2_settings import UNTOLD_STREAMS
from lbproxy.worker.backends.http2_stream import BackendStream

HTTP2 = Setup(is_http2=True)
TIMEOUTS = PoolTimeouts(keepalive_s=30.0)


async def open_many(lb: Proxy, count: int) -> list[BackendStream]:
    opened: list[BackendStream] = []

    async def one() -> None:
        opened.append(await lb.context.shared.open(lb.view(0), TIMEOUTS))
        opened[-1].begin(b"\x82\x86\x84\x41\x01a", end=False)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return opened


@trio_test(timeout_s=8)
async def test_those_who_come_together_wait_for_one_connection() -> None:
    async with proxy("express", serving(), setup=HTTP2) as lb:
        streams = await open_many(lb, UNTOLD_STREAMS)
        assert len({id(stream.connection) for stream in streams}) == 1
        assert not any(stream.reused for stream in streams)
        await wait_until(lambda: streams[0].connection.has_room)
        assert (await lb.context.shared.open(lb.view(0), TIMEOUTS)).connection is streams[0].connection
        assert lb.context.shared.ready(lb.view(0)) is streams[0].connection
        for stream in streams:
            stream.leave()


@pytest.mark.parametrize(("allowed", "made"), [(100, 1), (20, 3)])
@trio_test(timeout_s=8)
async def test_a_crowd_waits_for_the_settings_and_makes_as_many_connections_as_it_needs(
    allowed: int, made: int
) -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer, settings={SettingCodes.MAX_CONCURRENT_STREAMS: allowed})
        await h2.until(lambda: False)

    async with proxy("express", script, setup=HTTP2) as lb:
        warm = await open_many(lb, 1)  # python-hyper's h2 is strict about streams before its SETTINGS are read
        await wait_until(lambda: warm[0].connection.has_settings)
        streams = await open_many(lb, 59)
        assert lb.context.shared.count(lb.view(0)) == made
        for stream in (*warm, *streams):
            stream.leave()


@trio_test(timeout_s=8)
async def test_a_backend_that_never_says_its_settings_is_not_waited_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_connections, "SETTINGS_S", 0.05)

    async def script(peer: Peer) -> None:
        await peer.wait_ended()

    async with proxy("express", script, setup=HTTP2) as lb:
        streams = await open_many(lb, UNTOLD_STREAMS + 2)
        assert lb.context.shared.count(lb.view(0)) == 2
        for stream in streams:
            stream.leave()


@trio_test(timeout_s=8)
async def test_all_who_wait_for_a_connection_hear_that_it_failed() -> None:
    async with proxy("express", serving(), setup=HTTP2) as lb:
        lb.backends[0].refuse()
        failed = 0

        async def one() -> None:
            nonlocal failed
            with pytest.raises(ConnectFailed):
                await lb.context.shared.open(lb.view(0), TIMEOUTS)
            failed += 1

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        assert failed == 5


@trio_test(timeout_s=8)
async def test_one_who_waits_goes_on_when_the_one_who_connects_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy("express", serving(), setup=HTTP2) as lb:
        shared, connect = lb.context.shared, lb.context.shared._connect
        calls = 0

        async def slow_at_first(*args: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 1:
                await trio.sleep_forever()
            return await connect(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(shared, "_connect", slow_at_first)
        async with trio.open_nursery() as nursery:
            leaving = trio.CancelScope()

            async def leaves() -> None:
                with leaving:
                    await shared.open(lb.view(0), TIMEOUTS)

            nursery.start_soon(leaves)
            await wait_until(lambda: calls == 1)
            nursery.start_soon(shared.open, lb.view(0), TIMEOUTS)
            await trio.testing.wait_all_tasks_blocked(0.01)
            leaving.cancel()
        assert calls == 2
        assert shared.count(lb.view(0)) == 1
