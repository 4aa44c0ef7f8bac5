"""The reply door: how an answer reaches a client, whatever protocol the client speaks.

The task lane answers through this interface only. HTTP/1 is one implementation (task/http1_reply.py).
"""

from collections.abc import Sequence
from typing import Protocol

from lbproxy.errors import LbproxyError
from lbproxy.wire.head import ResponseHead
from lbproxy.wire.pages import ErrorPage


class ClientGone(LbproxyError):
    """The client ended its side, or reset, while an answer was owed, or in the middle of a request."""


class Reply(Protocol):
    """The answer to one request. Whatever sends raises ClientGone where the client takes nothing any more.

    `own`: what belongs to this answer alone (see wire.headers.response_to_client).
    """

    begun: bool  # a byte of the final answer has gone out: no retry and no error page any more

    @property
    def pending(self) -> int:
        """Bytes that the client has not taken yet."""

    def can_keep(self, head: ResponseHead) -> bool:
        """Whether the connection can carry another answer after this one."""

    def interim(self, head: ResponseHead, own: bytes) -> None:
        """A 1xx. A client that does not know them gets nothing."""

    def switched(self, head: ResponseHead, own: bytes) -> bytes:
        """The head of a 101, for the relay that goes on with the connection."""

    def head(self, head: ResponseHead, own: bytes, *, keep: bool) -> None:
        """The final head. It leaves with what follows, in one packet where the answer is short."""

    def data(self, payload: bytes) -> None:
        """A part of the body; see `push`."""

    def push(self) -> None:
        """Send what has been put so far."""

    def end(self, trailers: Sequence[bytes]) -> None:
        """The answer is complete."""

    def error(self, page: ErrorPage) -> int:
        """A complete answer of lbproxy's own. Returns the size of its body in bytes."""

    def cut(self) -> None:
        """Nothing more comes of an answer that has begun: it must not look complete."""

    async def flush(self, stall_s: float) -> None:
        """Until the client has taken everything. ClientGone also when it takes nothing for `stall_s`."""
