"""What a shared connection to a backend tells the owner of a stream, and how a stream is lost. Holds facts only."""

from dataclasses import dataclass
from typing import Protocol

from lbproxy.wire.http2.hpack import Fields


@dataclass(frozen=True, slots=True)
class Loss:
    """A stream has ended without its end.

    `is_unread`: the backend never looked at it, so it may be sent again. `is_accident`: its connection has ended, which
    says nothing of the stream.
    """

    reason: str
    is_unread: bool = False
    is_accident: bool = False
    status: int = 502
    token: str = "connection_terminated"  # the error type of RFC 9209


class StreamOwner(Protocol):
    """Told of what comes on one stream."""

    def on_head(self, fields: Fields, end: bool) -> None:
        """A head of the answer, interim or final."""

    def on_data(self, data: bytes, size: int, end: bool) -> None:
        """`size`: what credit() is owed once the data is used."""

    def on_trailers(self, fields: Fields) -> None:
        """Trailers end the stream."""

    def on_writable(self) -> None:
        """Some of what was put has left, or the socket takes more."""

    def on_lost(self, loss: Loss) -> None:
        """The last call: the stream is gone."""
