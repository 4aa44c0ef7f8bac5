"""A backend that ends resets what it has not read: such a request goes elsewhere, and that is no attempt of its own."""

from collections.abc import Callable

import pytest
from support.peer import Peer
from support.proxy import FIRST_CELL, GET, LANES, OK, Proxy, every_lane, post, proxy
from support.trio_test import trio_test

MOST = 5  # retry.attempts of the pool, and three that are forgiven


async def ask(lane: str, asked: bytes, leave: Callable[[Peer], None], *, stays: bool, failing: int) -> tuple[int, int]:
    """The status that a client sees where the first `failing` backends leave so; and how often one was asked.

    Unless it stays, a backend that has left is not in the next table.
    """
    made: list[Proxy] = []
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        peers.append(peer)
        if len(peers) > failing:
            await peer.send(OK)
            return
        leave(peer)
        if not stays:
            (lb,) = made
            present = [view.cell - FIRST_CELL for pool in lb.router.table.pools for view in pool.backends]
            lb.publish(*(number for number in present if peer not in lb.backends[number].peers))

    async with proxy(lane, *[script] * (MOST + 1)) as lb:
        made.append(lb)
        answer = await lb.ask(asked)
        return answer.status, len(peers)


@every_lane
@trio_test(timeout_s=8)
async def test_what_backends_that_ended_have_not_read_is_forgiven_but_not_for_ever(lane: str) -> None:
    assert await ask(lane, GET, Peer.reset, stays=False, failing=MOST - 1) == (200, MOST)
    assert await ask(lane, GET, Peer.reset, stays=False, failing=MOST) == (502, MOST)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("asked", "leave", "stays", "attempts"),
    [
        (GET, Peer.reset, True, 2),  # it lives, and resets what it likes
        (GET, Peer.close, False, 2),  # it has read the request: perhaps that is why it ended
        (GET, Peer.close, True, 2),
        (post(b"abc"), Peer.reset, False, 1),  # a part may have been read
    ],
    ids=["alive", "read", "closed", "post"],
)
@trio_test(timeout_s=8)
async def test_every_other_end_counts(
    lane: str, asked: bytes, leave: Callable[[Peer], None], stays: bool, attempts: int
) -> None:
    assert await ask(lane, asked, leave, stays=stays, failing=attempts) == (502, attempts)
