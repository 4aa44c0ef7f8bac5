"""How long an HTTP/2 connection waits for what is not whole: for a head that does not come, not for a busy client."""

import trio
from support.proxy import OK, Setup, answering, proxy
from support.raw_http2 import connect_raw, get, headers
from support.trio_test import trio_test

from lbproxy.settings import ListenerTimeouts

HEADER_S = 0.6
HALF = 20  # bytes of a head


@trio_test(timeout_s=10)
async def test_a_client_whose_heads_are_cut_by_every_read_is_not_one_whose_head_does_not_come() -> None:
    setup = Setup(timeouts=ListenerTimeouts(header_s=HEADER_S))
    async with proxy("h2", answering(OK), setup=setup) as lb:
        client = await trio.to_thread.run_sync(connect_raw, lb.address.port)
        lb._clients.append(client)  # type: ignore[arg-type]
        began, stream, at = trio.current_time(), 1, 0
        while trio.current_time() - began < 2 * HEADER_S:
            client.send(headers(stream, get())[at:], headers(stream + 2, get())[:HALF])
            stream, at = stream + 2, HALF
            await trio.sleep(HEADER_S / 10)
        assert (await trio.to_thread.run_sync(client.verdict, stream - 2)).status == 200
        assert await trio.to_thread.run_sync(client.wait_end) == 0  # the last head stays half of one
        assert trio.current_time() - began < 6 * HEADER_S
