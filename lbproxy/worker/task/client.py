"""The client's side of a connection: its bytes until they are a head, what is known of the peer, the way to let go.

Knows listeners and time limits; nothing of backends. What was read and not used stays in `buffer` for the next
exchange, whichever lane that takes.
"""

import math
import socket

import trio

from lbproxy.model import ListenerView
from lbproxy.wire.body import Body, request_body
from lbproxy.wire.head import RequestHead, head_end
from lbproxy.wire.headers import ClientFacts, hsts_line
from lbproxy.worker.handover import READ_AHEAD_BYTES, Upgrade, head_too_slow, unnoticed
from lbproxy.worker.io.stream import READ_BYTES, ByteStream, SocketStream, StreamBroken
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.reply import ClientGone, Reply
from lbproxy.worker.task.http1_reply import Http1Reply

LINGER_S = 1.0
LINGER_BYTES = 64 * 1024
LINGER_UPLOAD_S = 30.0  # an upload that was answered early: as long as it keeps coming, the answer must not be reset
LINGER_UPLOAD_STALL_S = 5.0


class Client:
    """An HTTP/1 connection: see handover.ClientSide."""

    __slots__ = (
        "away",
        "buffer",
        "facts",
        "has_risked",
        "idle_scope",
        "is_stream",
        "is_unwanted",
        "lease",
        "listener",
        "on_left",
        "stream",
    )

    def __init__(self, stream: ByteStream, listener: ListenerView, facts: ClientFacts) -> None:
        self.stream = stream
        self.listener = listener
        self.facts = facts
        self.buffer = bytearray()
        self.has_risked = False  # a request that may not be replayed has gone out: the next may use a kept connection
        self.away: Upgrade | None = None  # it has become a relay's, which waits to be started
        self.idle_scope: trio.CancelScope | None = None  # set while nothing has come of the next request
        self.is_unwanted = False  # an operator has closed it: it serves no further request
        self.lease: Lease | None = None  # of the attempt that runs
        self.on_left = unnoticed
        self.is_stream = False

    @property
    def hsts(self) -> bytes:
        """The line that an answer gets where the backend has set none, behind a CRLF."""
        return hsts_line(self.listener.settings.hsts_s)

    @property
    def read_bytes(self) -> int:
        return READ_BYTES

    @property
    def sock(self) -> socket.socket:
        assert isinstance(self.stream, SocketStream)
        return self.stream.sock

    def relay_end(self) -> socket.socket:
        return self.sock

    def reply_to(self, head: RequestHead | None) -> Reply:
        return Http1Reply(self.stream, head)

    def body_of(self, head: RequestHead, max_bytes: int) -> Body:
        return request_body(head, max_bytes)

    async def read_head(self, at_most_s: float = math.inf) -> bytes | None:
        """The next request head, taken from the buffer; None when the client is done, or silent for too long (for its
        listener, or for longer than `at_most_s`).

        Raises Refused: 408 when a head has begun and is not complete in time, 400 and 431 as `head_end`.
        """
        limits, timeouts = self.listener.settings.limits, self.listener.settings.timeouts
        if not self.buffer and not await self._wait_first(min(timeouts.idle_s, at_most_s)):
            return None
        seen = 0
        with trio.move_on_after(timeouts.header_s):
            while (end := head_end(self.buffer, seen, limits.header_bytes)) < 0:
                seen = len(self.buffer)
                if not await self.more():
                    return None
            head = bytes(self.buffer[:end])
            del self.buffer[:end]
            return head
        raise head_too_slow(timeouts.header_s)

    async def more(self) -> bool:
        """Wait for bytes and add them to the buffer; False at the end, or when the connection broke."""
        try:
            data = await self.stream.receive()
        except StreamBroken:
            return False
        self.buffer += data
        return bool(data)

    async def watch(self) -> None:
        """Until the client is gone (raises ClientGone). What it sends meanwhile is kept, up to the limit."""
        while len(self.buffer) < READ_AHEAD_BYTES:
            if not await self.more():
                if self.listener.settings.half_close == "serve":
                    break  # its request is complete, and it may still read
                raise ClientGone("the client ended its side while an answer was owed")
        await trio.sleep_forever()  # its end is noticed when the answer cannot be sent

    async def linger(self, *, upload: bool) -> None:
        """Half-close, then read and drop for a while, so that a reset does not swallow the answer on its way."""
        self.stream.half_close()
        stall_s, total_s = (LINGER_UPLOAD_STALL_S, LINGER_UPLOAD_S) if upload else (LINGER_S, LINGER_S)
        dropped = len(self.buffer)
        with trio.move_on_after(total_s):
            while upload or dropped < LINGER_BYTES:
                self.buffer.clear()
                alive = False
                with trio.move_on_after(stall_s):
                    alive = await self.more()
                if not alive:
                    return
                dropped += len(self.buffer)

    async def _wait_first(self, idle_s: float) -> bool:
        self.idle_scope = trio.CancelScope(deadline=trio.current_time() + idle_s)
        try:
            with self.idle_scope:
                return await self.more()
            return False
        finally:
            self.idle_scope = None
