"""A stream of HTTP/2 as an end of a relay, whoever is behind it, and the side of the relay that it is told to.

Holds no behaviour: http2/relayed_stream.py is the client's end, backends/tunnel.py the backend's.
"""

import socket
from typing import Protocol

PARTING_S = 1.0  # behind the relay's end the peer has so long to end the stream, too


class StreamListener(Protocol):
    """A relay's side that has a stream: it is told of what comes."""

    def on_stream_data(self, data: bytes) -> None:
        """The side owes a credit for the data."""

    def on_stream_end(self) -> None: ...
    def on_stream_room(self) -> None:
        """Something that was pending has left."""

    def on_stream_gone(self) -> None:
        """The peer has reset the stream, or its connection has ended."""


class StreamEnd(Protocol):
    """One stream of an HTTP/2 connection as an end of a relay: a client's, or a backend's. No method raises; a stream
    that is gone takes everything and does nothing."""

    @property
    def sock(self) -> socket.socket:
        """The socket of its connection, which the relay must leave alone."""

    @property
    def pending(self) -> int:
        """Bytes that were sent and not taken by the peer yet."""

    @property
    def has_ended(self) -> bool:
        """The peer has sent END_STREAM."""

    def attach(self, listener: StreamListener) -> None: ...
    def send(self, data: bytes) -> None: ...
    def hang_up(self) -> None:
        """END_STREAM, behind what is pending."""

    def credit(self, size: int) -> None:
        """So much of the data was passed on: its window opens again."""

    def close(self, *, reset: bool) -> None:
        """The listener is told of nothing more. `reset`: the peer must not take a part for the whole."""
