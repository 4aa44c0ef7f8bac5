"""A backend that speaks HTTP/2, on a connection of support/proxy.py: python-hyper's h2 speaks, the test decides.

async def script(peer: Peer) -> None:
    h2 = await speak(peer)
    asked = await h2.request()
    await h2.answer(asked.id, b"hello")

async with proxy("express", script, setup=Setup(is_http2=True)) as lb: ...
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.settings import Settings
from hyperframe.frame import Frame

from support.peer import Ended, Peer

Fields = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Asked:
    """A request, as far as it has come."""

    id: int
    fields: dict[bytes, bytes]
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None  # the code of its RST_STREAM


class Http2Peer:
    """One connection. `holds`: the windows are given back by the test alone."""

    def __init__(self, peer: Peer, *, holds: bool = False) -> None:
        self.peer = peer
        self.holds = holds
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.asked: dict[int, Asked] = {}
        self.events: list[Event] = []
        self._served = 0  # requests that request() or head() has given

    # Sending

    async def begin(self, settings: dict[int, int] | None = None) -> None:
        """`settings`: by their codes in h2.settings."""
        if settings:
            self.h2.local_settings = Settings(client=False, initial_values=settings)  # type: ignore[arg-type]
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        if data := self.h2.data_to_send():
            await self.peer.send(data)

    async def frame(self, *frames: Frame) -> None:
        """Frames that h2 would not make, or not now."""
        await self.peer.send(b"".join(frame.serialize() for frame in frames))

    async def head(self, stream: int, *fields: tuple[bytes, bytes], status: bytes = b"200", end: bool = False) -> None:
        self.h2.send_headers(stream, [(b":status", status), *fields], end_stream=end)
        await self.flush()

    async def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """As far as the windows let it. Raises Ended."""
        while True:
            size = min(len(data), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            self.h2.send_data(stream, data[:size], end_stream=end and size == len(data))
            await self.flush()
            data = data[size:]
            if not data:
                return
            while self.h2.local_flow_control_window(stream) <= 0:
                await self.more()

    async def trailers(self, stream: int, *fields: tuple[bytes, bytes]) -> None:
        self.h2.send_headers(stream, list(fields), end_stream=True)
        await self.flush()

    async def answer(self, stream: int, body: bytes = b"", *fields: tuple[bytes, bytes]) -> None:
        await self.head(stream, *fields)
        await self.data(stream, body, end=True)

    # Receiving

    async def more(self) -> None:
        """Read once more. Raises Ended."""
        if not await self.peer.more():
            raise Ended("the proxy has ended the connection")
        data = bytes(self.peer.buffer)
        self.peer.buffer.clear()
        for event in self.h2.receive_data(data):
            self._note(event)
        await self.flush()

    def _note(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case RequestReceived():
                fields = dict(event.headers)
                assert len(fields) == len(event.headers), "a field stands there twice"
                self.asked[event.stream_id] = Asked(event.stream_id, fields)
            case DataReceived():
                self.asked[event.stream_id].body += event.data
                if not self.holds and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case TrailersReceived():
                self.asked[event.stream_id].trailers = list(event.headers)
            case StreamEnded():
                self.asked[event.stream_id].ended = True
            case StreamReset():
                self.asked[event.stream_id].reset = int(event.error_code)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self.more()

    async def begun(self) -> Asked:
        """The next request, as soon as its head is there."""
        await self.until(lambda: len(self.asked) > self._served)
        self._served += 1
        return list(self.asked.values())[self._served - 1]

    async def request(self) -> Asked:
        """The next request, with its body."""
        asked = await self.begun()
        await self.until(lambda: asked.ended)
        return asked

    def saw(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def pongs(self) -> int:
        return len(self.saw(PingAckReceived))

    @property
    def updates(self) -> int:
        return len(self.saw(WindowUpdated))


async def speak(peer: Peer, *, holds: bool = False, settings: dict[int, int] | None = None) -> Http2Peer:
    h2 = Http2Peer(peer, holds=holds)
    await h2.begin(settings)
    return h2


Script = Callable[[Peer], Awaitable[None]]


def serving(body: bytes = b"hello", *fields: tuple[bytes, bytes]) -> Script:
    """A script that answers each request, body included, alike."""

    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        while True:
            asked = await h2.request()
            await h2.answer(asked.id, body, *fields)

    return script
