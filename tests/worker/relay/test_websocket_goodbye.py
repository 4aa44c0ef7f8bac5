"""Whatever both sides say, whenever the goodbye falls: whole frames, one Close for each side, nothing after it."""

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.relaying import Peer, rig
from support.trio_test import trio_test
from support.websocket_talk import DRAIN, MASK, Conversation
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping

from lbproxy.wire.websocket import FrameTracker
from lbproxy.worker.relay.relay import Why


class Chatter:
    """A peer that talks until it hears a Close; then it ends its frame, and answers unless it is rude.

    Its messages are of all sizes, some in fragments with pings between them, written in pieces of any size.
    """

    def __init__(self, peer: Peer, dice: random.Random, kind: ConnectionType, *, rude: bool) -> None:
        self.heard: list[Event] = []
        self.wire = FrameTracker()
        self._peer = peer
        self._dice = dice
        self._kind = kind
        self._rude = rude

    async def talk(self) -> None:
        dice, frames, rest = self._dice, self._frames(), b""
        answer = b"\x88\x00" if self._kind is ConnectionType.SERVER else b"\x88\x80" + MASK
        try:
            while self._rude or not self.wire.close_complete:
                rest += next(frames)
                size = dice.choice((1, 2, 7, len(rest), len(rest)))
                await self._peer.send(rest[:size])
                rest = rest[size:]
                await trio.lowlevel.checkpoint()
            await self._peer.send(rest + answer)
        except OSError:
            assert self._rude or self.wire.close_complete

    async def listen(self) -> None:
        protocol = Connection(self._kind)
        with suppress(ConnectionResetError):  # if it was still talking, behind its Close
            while data := await self._peer.sock.recv(1 << 16):
                assert not self.wire.close_complete, "nothing comes behind a Close"
                self.wire.feed(data)
                protocol.receive_data(data)
                self.heard += protocol.events()

    def _frames(self) -> Iterator[bytes]:
        dice, protocol = self._dice, Connection(self._kind)
        while True:
            parts = dice.randint(1, 3)
            for number in range(1, parts + 1):
                size = dice.choice((0, 5, 125, 126, 1000, 70_000))
                yield protocol.send(BytesMessage(dice.randbytes(size), message_finished=number == parts))
                if dice.random() < 0.3:
                    yield protocol.send(Ping(dice.randbytes(4)))


@settings(max_examples=20)
@given(st.integers(0, 1 << 32), st.floats(0, 0.03), st.booleans(), st.booleans())
def test_whatever_is_said_each_side_gets_one_close_at_a_boundary(
    seed: int, after_s: float, tcp: bool, rude: bool
) -> None:
    dice = random.Random(seed)

    @trio_test
    async def run() -> None:
        async with rig() as made:
            talk = Conversation(made, replace(DRAIN, goodbye_s=0.12), tcp=tcp)
            client = Chatter(talk.link.client, dice, ConnectionType.CLIENT, rude=False)
            backend = Chatter(talk.link.backend, dice, ConnectionType.SERVER, rude=rude)
            async with trio.open_nursery() as nursery:
                for side in (client, backend):
                    nursery.start_soon(side.talk)
                    nursery.start_soon(side.listen)
                await trio.sleep(after_s)
                talk.say_goodbye(0.15)
            await talk.link.ended.wait()
            for side in (client, backend):
                assert (side.wire.close_code, side.wire.close_reason) == (1001, b"off")
                assert [type(event) for event in side.heard].count(CloseConnection) == 1
                assert isinstance(side.heard[-1], CloseConnection)
            assert talk.relay.closed_by == "proxy"
            assert talk.relay.why is Why.DONE

    run()
