"""A stream enters the express lane with a record that may have served others, and a call is not kept waiting."""

import trio
from support.http2 import connect2
from support.http2_backend import speak
from support.peer import Peer
from support.proxy import OK, answering, proxy, wait_until
from support.setup import Setup
from support.trio_test import trio_test

CALL = [("content-type", "application/grpc"), ("te", "trailers")]


@trio_test(timeout_s=8)
async def test_records_are_used_again_by_other_connections_and_keep_nothing_of_the_last_one() -> None:
    async with proxy("h2", answering(OK)) as lb:
        for _ in range(3):
            client = connect2(lb.address.port)
            lb._clients.append(client)  # type: ignore[arg-type]
            for path in ("/a", "/b"):
                assert (await trio.to_thread.run_sync(client.get, path)).status == 200
            client.close()
            await wait_until(lambda: not lb.lanes.connections)
        (free,) = lb.lanes.stream_heads.free
        assert not any(hasattr(free, name) for name in ("carrier", "sock", "read"))


@trio_test(timeout_s=8)
async def test_a_call_whose_messages_are_still_to_come_reaches_its_backend_at_once() -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        begun.set()
        asked = await h2.request()
        await h2.head(asked.id, (b"content-type", b"application/grpc"))
        await h2.trailers(asked.id, (b"grpc-status", b"0"))

    begun = trio.Event()
    async with proxy("h2", script, setup=Setup(is_http2=True)) as lb:
        client = connect2(lb.address.port)
        lb._clients.append(client)  # type: ignore[arg-type]
        number = await trio.to_thread.run_sync(lambda: client.request("POST", "/a.B/C", CALL, end=False))
        with trio.fail_after(0.9):  # not as late as another body would
            await begun.wait()
        await trio.to_thread.run_sync(lambda: client.send(number, b"\0\0\0\0\1x", end=True))
        answer = await trio.to_thread.run_sync(client.answer, number)
        assert (answer.status, answer.trailers) == (200, [("grpc-status", "0")])
        assert lb.lanes.handed_over["call"] == 1
