"""How much one side of a relay reads at once: little after a small message, and never at a message's cost."""

import pytest
from support.relaying import Peer, rig
from support.trio_test import trio_test

from lbproxy.worker.io.read_size import SMALL_BYTES, SMALL_RECV_BYTES
from lbproxy.worker.relay.relay import Relay, Why
from lbproxy.worker.relay.side import READ_BYTES

SIZES = (
    *(SMALL_BYTES, SMALL_BYTES + 1, SMALL_RECV_BYTES - 1, SMALL_RECV_BYTES, SMALL_RECV_BYTES + 1),
    *(READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, SMALL_RECV_BYTES + READ_BYTES - 1),
)


async def small_first(backend: Peer, client: Peer) -> None:
    for _ in range(2):
        await backend.send(b"small")
        assert await client.sock.recv(100) == b"small"


@pytest.mark.parametrize("size", SIZES)
@trio_test
async def test_a_message_after_small_ones_leaves_in_one_piece(size: int) -> None:
    async with rig() as made:
        link = made.relay(Relay, tcp=False)  # one send is one read there
        link.relay.start()
        for _ in range(2):
            await small_first(link.backend, link.client)
            await link.backend.send(bytes(size))
            assert len(await link.client.sock.recv(1 << 17)) == size
        assert link.relay.backend.received == 2 * (size + 10)


@trio_test
async def test_more_than_is_read_at_once_after_a_small_message_arrives_whole() -> None:
    async with rig() as made:
        link = made.relay(Relay, tcp=False)
        link.relay.start()
        await small_first(link.backend, link.client)
        size = SMALL_RECV_BYTES + READ_BYTES
        await link.backend.send(bytes(3 * size))
        assert await link.client.receive(3 * size) == bytes(3 * size)


@pytest.mark.parametrize("size", [SMALL_RECV_BYTES - 1, SMALL_RECV_BYTES])
@trio_test
async def test_a_reset_behind_a_read_that_was_filled_still_arrives_as_one(size: int) -> None:
    async with rig() as made:
        link = made.relay(Relay, tcp=True)
        link.relay.start()
        await small_first(link.backend, link.client)
        link.backend.plain.send(bytes(size))
        link.backend.reset()
        with pytest.raises(ConnectionResetError):
            await link.client.rest()
        await link.ended.wait()
        assert link.relay.why is Why.BACKEND_GONE
        assert link.relay.backend.received == 10 + size


@pytest.mark.parametrize("size", [SMALL_RECV_BYTES - 1, SMALL_RECV_BYTES])
@trio_test
async def test_an_end_behind_a_read_that_was_filled_is_passed_on(size: int) -> None:
    async with rig() as made:
        link = made.relay(Relay, tcp=True)
        link.relay.start()
        await small_first(link.backend, link.client)
        link.backend.plain.send(bytes(size))
        link.backend.end()
        assert await link.client.rest() == bytes(size)
        link.client.end()
        await link.ended.wait()
        assert link.relay.why is Why.DONE
