"""A live connection on its way from an old worker to a new one, as a value. Its descriptors travel beside it.

Knows what a worker has to know to go on: what was read and not passed on, where in a frame each direction stands, whose
lease it is. Times are seconds gone or left, because each process has a clock of its own. Bytes of clients and backends
are base64, those of heads Latin-1.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from enum import StrEnum

from lbproxy.model import BackendView
from lbproxy.settings import DrainSettings
from lbproxy.wire.websocket import FramePosition


class MovedKind(StrEnum):
    IDLE = "idle"  # a kept client connection between two requests
    TCP = "tcp"
    WEBSOCKET = "websocket"
    UPGRADED = "upgraded"  # another protocol after a 101


@dataclass(frozen=True, slots=True)
class MovedClient:
    """What wire.headers.ClientFacts is made of, with the settings of the listener."""

    ip: str  # empty for a peer without one
    port: int = 0  # that a PROXY header announced


@dataclass(frozen=True, slots=True)
class MovedSide:
    """One side of a relay."""

    waiting: str  # bytes for its socket that the socket has not taken yet: base64
    received: int  # bytes that came from it
    has_ended: bool = False  # its last byte was read
    is_shut: bool = False  # it was told that no more bytes follow


@dataclass(frozen=True, slots=True)
class MovedLease:
    """`drain`: what is left of each grace, if the backend drains; `goodbye_in_s`: when the goodbye is planned then."""

    backend: BackendView
    held_s: float
    drain: DrainSettings | None = None
    goodbye_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class MovedRequest:
    """The request that an upgraded connection began with, for its line in the access log."""

    time: float  # seconds of the epoch
    method: str
    target: str
    host: str
    minor: int
    status: int
    request_id: str
    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MovedRelay:
    """`request`: of an upgraded connection. The positions are those of a WebSocket."""

    lease: MovedLease
    client: MovedSide
    backend: MovedSide
    from_client: FramePosition | None = None
    from_backend: FramePosition | None = None
    request: MovedRequest | None = None


@dataclass(frozen=True, slots=True)
class MovedConnection:
    """Its descriptors: the client's, and of a relay the backend's."""

    kind: MovedKind
    listener: int  # ListenerView.key
    client: MovedClient
    age_s: float  # of the session; of an idle connection: since its last request
    received: str = ""  # of an idle connection: the beginning of the next request, base64
    has_risked: bool = False  # of an idle connection: see ExpressRecord
    relay: MovedRelay | None = None
    server_name: str | None = None  # of a TCP session: what its ClientHello asked for

    @property
    def descriptors(self) -> int:
        return 1 if self.relay is None else 2


def base64_of(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def bytes_of(text: str) -> bytes:
    """Raises ValueError."""
    return b64decode(text, validate=True)
