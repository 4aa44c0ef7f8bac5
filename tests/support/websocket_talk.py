"""Two WebSocket peers, after the handshake, with a relay between them that can be told goodbye."""

import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event

from lbproxy.settings import DrainSettings
from lbproxy.wire.websocket import FrameTracker
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.relay.websocket import WebSocketRelay
from support.relaying import Peer, Relayed, Rig

DRAIN = DrainSettings(websocket_s=0.3, goodbye_s=0.4, close_code=1001, close_reason="off")
TEXT = b"\x81\x05hello"
FIRST, LAST = b"\x01\x03one", b"\x80\x03two"
PING = b"\x89\x01?"
OURS = b"\x88\x05\x03\xe9off"
MASK = b"\x01\x02\x03\x04"
LONG = 30.0


def our_close(masked: bytes) -> bool:
    tracker = FrameTracker()
    tracker.feed(masked)
    assert masked[1] & 0x80, "towards a backend frames are masked"
    return tracker.close_code == 1001 and tracker.close_reason == b"off"


def masked(frame: bytes) -> bytes:
    """A short frame as a client sends it."""
    return frame[:1] + bytes((frame[1] | 0x80,)) + MASK + bytes(b ^ MASK[i & 3] for i, b in enumerate(frame[2:]))


MASKED_CLOSE = masked(OURS)


class Speaker:
    """A WebSocket peer after the handshake."""

    def __init__(self, peer: Peer, kind: ConnectionType) -> None:
        self.peer = peer
        self.protocol = Connection(kind)
        self.wire = b""  # as received

    async def say(self, *events: Event) -> None:
        await self.peer.send(b"".join(self.protocol.send(event) for event in events))

    async def hear(self) -> list[Event]:
        """The frames up to a Close or the end."""
        heard: list[Event] = []
        while True:
            data = await self.peer.sock.recv(1 << 16)
            if not data:
                return heard
            self.wire += data
            self.protocol.receive_data(data)
            for event in self.protocol.events():
                heard.append(event)
                if isinstance(event, CloseConnection):
                    return heard

    async def answer(self, close: CloseConnection) -> None:
        await self.say(close.response())


class Conversation:
    """A started relay, its two peers, and its lease."""

    def __init__(self, made: Rig, drain: DrainSettings, *, tcp: bool = True) -> None:
        self.link: Relayed[WebSocketRelay] = made.relay(WebSocketRelay, tcp=tcp)
        self.relay = self.link.relay
        self.client = Speaker(self.link.client, ConnectionType.CLIENT)
        self.backend = Speaker(self.link.backend, ConnectionType.SERVER)
        self.lease = Lease()
        self.lease.drain = drain
        self.relay.hold(self.lease)
        self.relay.start()

    def say_goodbye(self, window_s: float) -> None:
        self.relay.say_goodbye(trio.current_time() + window_s)

    async def pass_raw(self, data: bytes) -> None:
        """Send from the backend; wait until the client has the last byte."""
        await self.link.backend.send(data)
        assert await self.link.client.receive(len(data)) == data

    async def pass_raw_up(self, data: bytes) -> None:
        await self.link.client.send(data)
        assert await self.link.backend.receive(len(data)) == data
