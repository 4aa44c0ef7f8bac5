"""The backend door: how one exchange talks to its backend, whatever protocol the backend speaks.

An attempt uses this interface only. HTTP/1 is one implementation (http1_backend.py), HTTP/2 the other one.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lbproxy.wire.body import Body
from lbproxy.wire.head import RequestHead, ResponseHead
from lbproxy.worker.handover import ClientSide
from lbproxy.worker.io.stream_end import StreamEnd


@dataclass(frozen=True, slots=True)
class Asked:
    """What the head of a request to a backend is made of."""

    head: RequestHead
    client: ClientSide
    request_id: bytes
    upgrades: tuple[bytes, ...]  # the protocols that the backend is asked to switch to


class BackendSide(Protocol):
    """One request to one backend, and its answer.

    Nothing that is put raises: a backend that does not take the rest of a request may still have answered.
    """

    @property
    def takes(self) -> bool:
        """False once the backend takes nothing any more."""

    @property
    def may_refuse(self) -> bool:
        """Whether the backend can say, until it answers, that it never looked at the request: it is kept so long."""

    @property
    def pending(self) -> int:
        """Bytes put and not yet sent."""

    def put_request(self, asked: Asked, payload: bytes, *, end: bool) -> None:
        """The head, and what is in hand of the body. `end`: that is all of it, and no trailers follow."""

    def put(self, payload: bytes) -> None:
        """A part of the body."""

    def put_end(self, trailers: Sequence[bytes]) -> None:
        """The body is complete. Not called where put_request() was told so."""

    async def flush(self, stall_s: float) -> None:
        """Until nothing is pending, or the backend takes nothing more. Raises StreamStalled when nothing moved for
        `stall_s`."""

    async def next_head(self) -> ResponseHead:
        """The next head of the answer: interim ones, then the final one. Raises NoAnswer, ProxyError or Refused."""

    def body(self, head: ResponseHead) -> Body:
        """What follows the final head."""

    def take_received(self) -> bytes:
        """What has come of the body and was not taken yet."""

    async def receive(self, most_bytes: int) -> bytes:
        """More of the body; b"" at its sender's end. `most_bytes`: of what has not been read yet. Raises
        StreamBroken."""

    def relay_end(self) -> socket.socket | StreamEnd:
        """What a relay goes on with, behind a 101: instead of release()."""

    def release(self, *, reusable: bool) -> None:
        """The exchange is over. `reusable`: request and answer are complete, and nothing speaks against another one."""
