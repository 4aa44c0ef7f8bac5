"""Workers that take over from each other, in the test's own process: their stacks, and a control between them.

    async with workers(shouting, setup=TCP) as lb:
        client = await lb.now.client()
        await lb.replace()      # every connection that can be moved is with a new worker
        ...

Values and descriptors go the way that they go between processes: through the link's codec, and duplicated.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
import trio

from lbproxy.link.codec import decode, encode
from lbproxy.link.messages import Given, Take, ToControl, ToWorker
from lbproxy.worker.giving import Giver
from lbproxy.worker.io import reactor
from lbproxy.worker.taking import Taker
from support.proxy import Proxy, Script, Setup, no_descriptor_left

ROWS = 24  # of the grid: as many workers after each other


class Workers:
    """`now` is the worker that serves, `olds` those before it. `before_take` and `before_release` are awaited while a
    connection is under way. `whys`: what the new workers said, empty where they took the connection."""

    def __init__(self, first: Proxy, nursery: trio.Nursery) -> None:
        self.now = first
        self.olds: list[Proxy] = []
        self.whys: list[str] = []
        self.before_take: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.before_release: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.giver: Giver | None = None
        self._nursery = nursery

    async def replace(self) -> Proxy:
        """A new worker, which has every connection that could be moved. Returns the old one."""
        old = self.now
        new = Proxy(old.lane, (), old.setup, before=old, row=len(self.olds) + 1)
        await new.run(self._nursery)
        self.olds.append(old)
        self.now = new
        send, receive = trio.open_memory_channel[tuple[bytes, list[int]]](1000)

        def post(message: Given, fds: Sequence[int]) -> None:
            send.send_nowait((encode(message), [os.dup(fd) for fd in fds]))

        self.giver = giver = Giver(old.lanes, post)
        old.acceptor.close()
        async with trio.open_nursery() as moving:
            moving.start_soon(self._control, giver, Taker(new.lanes), receive)
            giver.look()
            moving.start_soon(giver.run)
            await giver.wait_settled()
            moving.cancel_scope.cancel()
        self._nursery.start_soon(giver.run)  # for what can be moved later
        self._nursery.start_soon(self._control, giver, Taker(new.lanes), receive)
        return old

    async def _control(
        self, giver: Giver, taker: Taker, receive: trio.MemoryReceiveChannel[tuple[bytes, list[int]]]
    ) -> None:
        async for data, fds in receive:
            given = decode(data, ToControl)
            await self.before_take()
            take = decode(encode(Take(given.number, given.moved)), ToWorker)
            why = taker.take(take.moved, fds)
            self.whys.append(why)
            await self.before_release()
            giver.released(given.number, is_taken=not why)


@asynccontextmanager
async def workers(*scripts: Script, setup: Setup | None = None, lane: str = "express") -> AsyncIterator[Workers]:
    with no_descriptor_left(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(reactor, "LINGER_S", 0.0)
        first = Proxy(lane, scripts, replace(setup or Setup(), rows=ROWS))
        made: Workers | None = None
        try:
            async with trio.open_nursery() as nursery:
                for backend in first.backends:
                    nursery.start_soon(backend.run)
                await first.run(nursery)
                made = Workers(first, nursery)
                yield made
                for client in first._clients:
                    client.close()
                for one in (*made.olds, made.now):
                    await one.empty()
                nursery.cancel_scope.cancel()
        finally:
            for old in made.olds if made is not None else ():
                old.leave()
            with suppress(ValueError):
                (made.now if made is not None else first).close()
