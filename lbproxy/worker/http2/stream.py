"""One stream of an HTTP/2 connection as the client of an exchange (handover.ClientSide), and its request's body.

Knows its connection by what `Carrier` names. What has come of the body waits in `buffer`, bounded by the stream's
window; the window opens again as the exchange takes it.
"""

import socket
from typing import Any, Protocol

import trio

from lbproxy.model import ListenerView
from lbproxy.wire.body import Body
from lbproxy.wire.head import RequestHead
from lbproxy.wire.headers import ClientFacts, hsts_line
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.lines import bad_request
from lbproxy.worker.handover import Upgrade, unnoticed
from lbproxy.worker.http2.relayed_stream import RelayedStream
from lbproxy.worker.http2.reply import Http2Reply
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.reply import ClientGone


class Carrier(Protocol):
    """The connection of a stream."""

    sock: socket.socket
    view: ListenerView
    facts: ClientFacts

    @property
    def now(self) -> float: ...
    @property
    def read_bytes(self) -> int: ...
    @property
    def is_full(self) -> bool: ...
    @property
    def encoded_lines(self) -> EncodedLines: ...
    def pending(self, stream_id: int) -> int: ...
    def send_head(self, stream_id: int, block: bytes, *, end: bool) -> None: ...
    def send_data(self, stream_id: int, payload: bytes, *, end: bool) -> None: ...
    def reset(self, stream_id: int, code: int) -> None: ...
    def credit(self, stream_id: int, size: int) -> None: ...
    def relayed(self, stream: Any) -> RelayedStream: ...


class StreamBody(Body):
    """The DATA of a stream. `feed` takes what has come out of the buffer, and its window opens again."""

    __slots__ = ("_max_bytes", "_stream", "_total")

    def __init__(self, stream: "StreamClient", max_bytes: int, length: int | None) -> None:
        super().__init__(None, response=False)
        self._stream = stream
        self._max_bytes = max_bytes  # 0 = no limit
        self._total = 0
        self.remaining = length
        self.done = stream.has_ended and not stream.buffer

    def feed(self, data: bytes) -> bytes:
        size = len(data)
        self._stream.take(size)
        self._total += size
        if self._max_bytes and self._total > self._max_bytes:
            raise bad_request(f"the body is over {self._max_bytes} bytes", 413)
        if self._stream.has_ended:
            self.done = True
            self.trailers = self._stream.trailers
        return data


class StreamClient:
    """`number`: the stream's id."""

    __slots__ = (
        "_body",
        "_carrier",
        "_changed",
        "away",
        "buffer",
        "gone",
        "has_ended",
        "has_risked",
        "is_stream",
        "lease",
        "number",
        "on_left",
        "reply",
        "since",
        "trailers",
    )

    def __init__(self, carrier: Carrier, number: int, *, ended: bool) -> None:
        self._carrier = carrier
        self._body: StreamBody | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self.number = number
        self.since = carrier.now
        self.has_ended = ended  # the request is here to its last byte
        self.gone = ""  # why nothing more comes or goes
        self.reply: Http2Reply | None = None
        self.buffer = bytearray()
        self.trailers: list[bytes] = []
        self.has_risked = False
        self.away: Upgrade | None = None
        self.lease: Lease | None = None
        self.on_left = unnoticed
        self.is_stream = True

    def __repr__(self) -> str:
        lease = f"{self.lease.backend.id} ({self.lease.kind})" if self.lease is not None else "no lease"
        state = self.gone or ("half-closed" if self.has_ended else "open")
        waiting = f"{len(self.buffer)} received, {self.pending} to send"
        return f"<stream {self.number}, {state}, {lease}, buffered: {waiting}>"

    # As an exchange sees it

    @property
    def listener(self) -> ListenerView:
        return self._carrier.view

    @property
    def facts(self) -> ClientFacts:
        return self._carrier.facts

    @property
    def sock(self) -> socket.socket:
        return self._carrier.sock

    @property
    def read_bytes(self) -> int:
        return self._carrier.read_bytes

    @property
    def hsts(self) -> bytes:
        return hsts_line(self._carrier.view.settings.hsts_s)

    def reply_to(self, head: RequestHead | None) -> Http2Reply:
        self.reply = reply = Http2Reply(self, head)
        return reply

    def relay_end(self) -> RelayedStream:
        """The stream as an end of a relay, which has its place from now on."""
        self.take(len(self.buffer))
        return self._carrier.relayed(self)

    def body_of(self, head: RequestHead, max_bytes: int) -> Body:
        if max_bytes and head.length is not None and head.length > max_bytes:
            raise bad_request(f"the body is over {max_bytes} bytes", 413)
        self._body = body = StreamBody(self, max_bytes, head.length)
        if head.upgrades:  # DATA of an extended CONNECT is for behind the switch (RFC 8441, 5)
            body.done = True
        return body

    async def more(self) -> bool:
        while not (self.buffer or self.has_ended):
            if self.gone:
                return False
            await self._changed.park()
        return True

    async def watch(self) -> None:
        while not self.gone:
            await self._changed.park()
        raise ClientGone(self.gone)

    # As its answer sees it

    @property
    def encoded_lines(self) -> EncodedLines:
        return self._carrier.encoded_lines

    @property
    def pending(self) -> int:
        return 0 if self.gone else self._carrier.pending(self.number)

    @property
    def is_crowded(self) -> bool:
        """Other streams have put so much that no more of this one may be read while something of it waits."""
        return self._carrier.is_full

    def send_head(self, block: bytes, *, end: bool) -> None:
        self._refuse_gone()
        self._carrier.send_head(self.number, block, end=end)

    def send_data(self, payload: bytes, *, end: bool) -> None:
        self._refuse_gone()
        self._carrier.send_data(self.number, payload, end=end)

    def reset(self, code: int) -> None:
        if not self.gone:
            self.gone = "the stream was reset by lbproxy"
            self._carrier.reset(self.number, code)

    async def wait_taken(self, pending: int) -> None:
        """Until less than that is pending. Raises ClientGone."""
        while self.pending >= pending:
            await self._changed.park()
        self._refuse_gone()

    def _refuse_gone(self) -> None:
        if self.gone:
            raise ClientGone(self.gone)

    # As its connection sees it

    def take(self, size: int) -> None:
        """So much of what was received is used."""
        if size:
            self._carrier.credit(self.number, size)

    def received(self, data: bytes, *, end: bool) -> None:
        self.buffer += data
        if end:
            self.end([])
        elif data:
            self.rouse()

    def end(self, trailers: list[bytes]) -> None:
        """The request is complete."""
        self.trailers = trailers
        self.has_ended = True
        body = self._body
        if body is not None and not self.buffer:
            body.done = True
            body.trailers = trailers
        self.rouse()

    def leave(self, why: str) -> None:
        """The client has left, or its connection."""
        if not self.gone:
            self.gone = why
            self.on_left()
            self.rouse()

    def rouse(self) -> None:
        """Whoever waits looks again."""
        self._changed.unpark_all()
