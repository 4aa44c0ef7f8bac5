"""The values that one lane gives another, and the limits that every lane keeps. The lanes know this and not each other.

The express lane hands an exchange to a task (Handover), a task hands a WebSocket to a relay (Upgrade), and every lane
tells the worker's lanes when a connection is over (Home). A task serves its client by ClientSide, whatever protocol the
client speaks.
"""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lbproxy.model import ListenerView
from lbproxy.settings import PoolTimeouts
from lbproxy.telemetry.access import AccessRecord
from lbproxy.wire.body import Body
from lbproxy.wire.head import Refused, RequestHead
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.upgrades import WEBSOCKET
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.backends.http2_stream import BackendStream
from lbproxy.worker.context import Context
from lbproxy.worker.io.reactor import Reactor
from lbproxy.worker.io.splice import Pipes
from lbproxy.worker.io.stream_end import StreamEnd
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.leases.router import Router
from lbproxy.worker.reply import Reply

READ_AHEAD_BYTES = 64 * 1024  # of later requests, while an answer is owed
EARLY_BODY_S = 1.0  # a body that is not complete by then streams: a backend is claimed
LAST_REQUEST_S = 0.5  # a stopping worker waits so long for a last request of a silent client
CLIENT_CLOSED = 499  # the status of a client that left, in the log only


def head_too_slow(header_s: float) -> Refused:
    return Refused(408, "http_request_error", f"the request head was not complete within {header_s:g}s")


class Home(Protocol):
    """What a connection asks of the worker's lanes."""

    context: Context
    reactor: Reactor
    router: Router
    pipes: Pipes

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None: ...
    def offer(self, record: Any) -> None: ...
    def closed(self, record: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Begun:
    """A backend that is held, and a connection to it, or a stream on a shared one.

    `sent`: head and what was in hand of the body were put there.
    """

    lease: Lease
    connection: BackendConnection | BackendStream
    timeouts: PoolTimeouts
    sent: bool = False
    respond_by: float | None = None  # clock reading; None: the backend's time begins when the request is sent


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that the express lane has sent, wholly or partly."""

    begun: Begun
    head: RequestHead
    own: bytes  # see ExpressRecord
    payload: bytes  # in hand, as it was sent behind the head; b"" of an upload, which is not kept
    request_bytes: int  # of the body, sent so far
    started: float  # when the head was complete: clock reading
    unsent: bytes = b""  # not taken by the backend yet


@dataclass(frozen=True, slots=True)
class Handover:
    """All that the express lane knows of an exchange that it gives to a task."""

    why: str  # a key of link/handed_over.py
    data: bytes  # received from the client and not used yet
    refused: Refused | None = None  # the client gets only this answer
    came_at: float | None = None  # when the head came, if its body was waited for: clock reading
    has_stalled: bool = False  # the body was silent for as long as it may be
    sent: Sent | None = None  # None: nothing is claimed yet


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A connection whose upgrade was answered with 101, when no task reads its sockets any more."""

    lease: Lease
    client: socket.socket | StreamEnd
    backend: socket.socket | StreamEnd
    head: bytes  # of the 101, as the client gets it; b"" when it has it already
    from_client: bytes  # received and not passed on yet
    from_backend: bytes
    record: AccessRecord  # as far as it has come
    started: float  # clock reading
    protocol: bytes = WEBSOCKET  # of the 101


class ClientSide(Protocol):
    """The client of one exchange in the task lane: an HTTP/1 connection, or one stream of an HTTP/2 connection."""

    buffer: bytearray  # received and not used yet
    has_risked: bool  # a request that may not be replayed has gone out: the next may use a kept connection
    away: Upgrade | None  # it has become a relay's, which waits to be started
    lease: Lease | None  # of the attempt that runs
    on_left: Callable[[], None]  # called once when the client leaves, as far as that shows without a read
    is_stream: bool  # its connection carries other exchanges, too, and is not ended for one that finds no answer

    @property
    def listener(self) -> ListenerView: ...
    @property
    def facts(self) -> ClientFacts: ...

    @property
    def hsts(self) -> bytes:
        """The line that an answer gets where the backend has set none, behind a CRLF."""

    @property
    def sock(self) -> socket.socket:
        """The socket of its connection."""

    @property
    def read_bytes(self) -> int:
        """How much is read of its answer at a time."""

    def relay_end(self) -> socket.socket | StreamEnd:
        """What a relay goes on with, behind a 101."""

    def reply_to(self, head: RequestHead | None) -> Reply:
        """The door for the one answer. None: of bytes that are no request; only an error can be sent."""

    def body_of(self, head: RequestHead, max_bytes: int) -> Body:
        """The request's body. `max_bytes`: 0 = no limit. Raises Refused (413) for a known length over it."""

    async def more(self) -> bool:
        """Wait for more of the request; False at its end before it is complete."""

    async def watch(self) -> None:
        """Until the client is gone (raises ClientGone)."""


def unnoticed() -> None:
    """The client has left, and nothing has to be ended for it."""
