"""What a connection tells the object that owns it."""

from typing import Protocol

from lbproxy.wire.http2.errors import StreamFailed
from lbproxy.wire.http2.hpack import Fields


class Owner(Protocol):
    """Told of what comes in. Every method may call back into the connection, but not feed() or take()."""

    def on_head(self, stream_id: int, fields: Fields, end: bool) -> None:
        """The head of a message; towards a backend also an interim one. The same tuple again for the same block."""

    def on_large_head(self, stream_id: int, fields: Fields, end: bool) -> None:
        """A head or trailers over header_list_bytes; `fields` are those that came before the limit."""

    def on_data(self, stream_id: int, data: bytes, size: int, end: bool) -> None:
        """`size`: what credit() is owed for it once it is used; padding counts."""

    def on_trailers(self, stream_id: int, fields: Fields) -> None:
        """The stream's end, with fields."""

    def on_reset(self, stream_id: int, code: int) -> None:
        """The peer has reset the stream, or said by GOAWAY that it never looked at it (REFUSED_STREAM)."""

    def on_failed(self, failure: StreamFailed) -> None:
        """The peer has broken a rule of a stream, or opened one too many: it is reset already."""

    def on_writable(self, stream_id: int) -> None:
        """Data of the stream has left its queue."""

    def on_goaway(self, last_id: int, code: int, debug: bytes) -> None:
        """The peer goes. on_reset follows for the streams that it never looked at."""

    def on_ping_ack(self, payload: bytes) -> None: ...

    def on_settings(self) -> None:
        """`peer` has changed."""
