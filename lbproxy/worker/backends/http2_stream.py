"""One exchange on a shared connection to a backend, as a task sees it: what has come and waits to be taken.

Knows one stream; the connection calls on_…(), a task waits. At most two windows of data are in hand: one that the task
has taken, one that waits.
"""

from collections import deque
from collections.abc import Iterable

import trio

from lbproxy.model import BackendView
from lbproxy.wire.http2.errors import NoStreams
from lbproxy.wire.http2.hpack import Fields
from lbproxy.worker.backends.http2_connection import SharedConnection
from lbproxy.worker.backends.stream_owner import Loss
from lbproxy.worker.backends.tunnel import Tunnel


class BackendStream:
    """One request on a shared connection; `begin` opens it. `reused`: its connection has served before."""

    __slots__ = (
        "_changed",
        "_data",
        "_heads",
        "_held_bytes",
        "_id",
        "connection",
        "has_ended",
        "loss",
        "reused",
        "trailers",
    )

    def __init__(self, connection: SharedConnection, *, reused: bool) -> None:
        self.connection = connection
        self.reused = reused
        self.has_ended = False  # the backend's side
        self.loss: Loss | None = None
        self.trailers: Fields = ()
        self._id = 0  # 0: it has not begun
        self._heads: deque[Fields] = deque()
        self._data: list[bytes] = []
        self._held_bytes = 0
        self._changed = trio.Event()

    @classmethod
    def taken_over(cls, connection: SharedConnection, stream_id: int, *, reused: bool) -> "BackendStream":
        """The rest of a stream that another owner has begun. That owner tells what had come until now."""
        self = cls(connection, reused=reused)
        self._id = stream_id
        connection.pass_on(stream_id, self)
        return self

    @property
    def backend(self) -> BackendView:
        return self.connection.backend

    # The request

    def begin(self, block: bytes, *, end: bool) -> None:
        try:
            self._id = self.connection.begin_stream(self, block, end=end)
        except NoStreams as exc:
            self.loss = Loss(str(exc), is_unread=True)

    def put(self, data: bytes, *, end: bool = False) -> None:
        if self.loss is None:
            self.connection.put(self._id, data, end=end)

    def put_trailers(self, block: bytes) -> None:
        if self.loss is None:
            self.connection.put_trailers(self._id, block)

    @property
    def pending(self) -> int:
        """Bytes that wait: for a window, or because the socket takes nothing."""
        if self.loss is not None or not self._id:
            return 0
        return self.connection.pending(self._id) or int(self.connection.is_congested)

    async def takes_tunnel(self, within_s: float) -> bool:
        """Whether it may begin with an extended CONNECT (RFC 8441): the backend's SETTINGS are awaited."""
        with trio.move_on_after(within_s):
            await self.connection.settled.wait()
        return self.connection.takes_tunnels

    def become_tunnel(self) -> Tunnel:
        """The stream as an end of a relay, which has its place from now on. What has come is taken before."""
        tunnel = Tunnel(self.connection, self._id, has_ended=self.has_ended)
        if self.loss is not None:
            tunnel.on_lost(self.loss)
        else:
            self.connection.pass_on(self._id, tunnel)
        return tunnel

    def leave(self) -> None:
        """End the stream; what is not over is cancelled."""
        if self._id:
            self.connection.leave(self._id)

    # The answer

    async def wait_change(self) -> None:
        """Until something has come, or has left, or the stream is lost."""
        await self._changed.wait()

    def next_head(self) -> Fields | None:
        return self._heads.popleft() if self._heads else None

    def take(self) -> bytes:
        """All data that has come. The backend may send as much again."""
        data = self._data[0] if len(self._data) == 1 else b"".join(self._data)
        self._data.clear()
        held, self._held_bytes = self._held_bytes, 0
        if held and self.loss is None:
            self.connection.credit(self._id, held)
        return data

    @property
    def has_data(self) -> bool:
        return bool(self._data)

    # Told by the connection

    def on_head(self, fields: Fields, end: bool) -> None:
        self._heads.append(fields)
        self.has_ended = end
        self._change()

    def on_data(self, data: bytes, size: int, end: bool) -> None:
        if data:
            self._data.append(data)
        self._held_bytes += size
        self.has_ended = end
        self._change()

    def on_trailers(self, fields: Fields) -> None:
        self.trailers = fields
        self.has_ended = True
        self._change()

    def on_writable(self) -> None:
        self._change()

    def on_lost(self, loss: Loss) -> None:
        self.loss = loss
        self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def first_with_room(connections: Iterable[SharedConnection]) -> SharedConnection | None:
    """The oldest ones are filled first, so that the others become idle and close."""
    return next((connection for connection in connections if connection.has_room), None)
