"""Response heads whose lines end in a bare LF: refused, or rewritten where the pool accepts them, in both lanes."""

import pytest
from support.peer import Peer
from support.proxy import GET, Script, lanes, proxy
from support.trio_test import trio_test


def saying(data: bytes, step: int) -> Script:
    """Each request is answered with this, in pieces."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.dribble(data, step or len(data))

    return script


BARE_LF = b"HTTP/1.1 200 OK\nServer: old\nContent-Length: 9\n\none\r\n\r\ntw"


@lanes
@pytest.mark.parametrize("step", [0, 1, 7])
@trio_test(timeout_s=8)
async def test_bare_line_feeds_in_a_head_become_crlf_where_the_pool_accepts_them(lane: str, step: int) -> None:
    async with proxy(lane, saying(BARE_LF, step)) as lb:
        assert (await lb.ask(GET)).status == 502
        lb.publish(0, accept_bare_lf=True)
        client = await lb.client()
        for _ in range(2):
            await client.send(GET)
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"one\r\n\r\ntw")
            assert answer.get(b"server") == b"old"
        assert b"\n" not in bytes(client.received).replace(b"\r\n", b"")
